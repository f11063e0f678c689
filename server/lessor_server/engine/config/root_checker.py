"""What a root is and may do, and what a role would meet on AWS: asked without changing anything.

Questions go out a few at a time, behind everything that somebody's credential waits for, and share one
deadline; what AWS did not answer in time is not known, and said to be so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lessor_server.domain.aws import least_policy, role_needs
from lessor_server.domain.aws.calls import Call, GetUser, Identity, ListAccessKeys
from lessor_server.domain.aws.errors import AwsError, AwsRefused, Refusal
from lessor_server.domain.aws.least_policy import MAX_RESOURCES, Grant, Holder, RoleUse
from lessor_server.domain.aws.read_calls import GetAccountSummary
from lessor_server.domain.errors.base import AwsUnavailable, LessorError
from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.role import Role
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import RootKind, kind_of, principal_of, unserved
from lessor_server.engine.aws.caller import AwsCaller, Done, Outcome
from lessor_server.engine.aws.rate_limiter import Priority
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.config import simulator
from lessor_server.engine.config.simulator import SimulationResult, Verdict
from lessor_server.engine.paging import iter_roles, iter_static_roles
from lessor_server.engine.ports import Store

T = TypeVar("T")

CHECK_SECONDS = 5.0
AT_ONCE = 4
MAX_LOOKS = 40
"""Of so many static roles' users AWS is asked for the ARN; those of others are patterns, as time is short."""
NEARLY_FULL = 0.9
"""The share of its quota of users from which on an account is said to be nearly full."""
_MAKE_TOKENS = (RootKind.USER_KEYS, RootKind.ACCOUNT_ROOT)


@dataclass(frozen=True, slots=True)
class RootCheck:
    """Hold what was found out about a root; ``verdicts`` by action, ``policy`` is the least it needs."""

    identity: Identity
    kind: RootKind
    verdicts: dict[str, Verdict]
    policy: dict[str, JsonValue]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _RootProbe:
    """The root under check, its identity on AWS, and the deadline (the loop's time) for calls."""

    root: Root
    identity: Identity
    kind: RootKind
    caller: AwsCaller
    until: float
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def ask(self, call: Call[T]) -> Outcome[T]:
        """Send one call; past the deadline its outcome is that AWS did not answer."""
        try:
            async with asyncio.timeout_at(self.until), self.room:
                return await self.caller.call(call)
        except TimeoutError:
            return AwsUnavailable(f"AWS did not answer within {CHECK_SECONDS:g} s", retry_in=1.0)

    async def all(self, calls: Sequence[Call[T]]) -> list[Outcome[T]]:
        """Send all calls, a few at a time, and wait for every one of them."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.ask(call)) for call in calls]
        return [task.result() for task in tasks]

    @property
    def key_arn(self) -> str:
        """Return the user whose stored key the root is; empty where there is no such key to rotate."""
        return self.identity.arn if self.kind is RootKind.USER_KEYS and self.root.config.access_key else ""

    async def may(self, needed: Sequence[Grant]) -> SimulationResult:
        """Ask what of ``needed`` the root is allowed; the account's own root user may do all."""
        free = _free(self.kind)
        if self.kind is RootKind.ACCOUNT_ROOT:
            all_of_it = (action for grant in needed for action in grant.actions)
            return SimulationResult(dict.fromkeys((*all_of_it, *free), Verdict.ALLOWED))
        found = await simulator.simulate(self.ask, principal_of(self.root.config, self.identity.arn), needed)
        found.verdicts = dict.fromkeys(free, Verdict.ALLOWED) | found.verdicts
        return found


class RootChecker:
    """Looks at roots and roles on AWS."""

    def __init__(self, store: Store, roots: Roots) -> None:
        """Ask with the mounts' own ``roots``; ``store`` knows which roles they need it for."""
        self._store = store
        self._roots = roots

    async def root(self, mount: str) -> RootCheck:
        """Find out who a mount's root is and what it may do.

        Raises:
            RootNotSet: The mount has no root.
            RootRefused, AwsUnavailable: AWS does not identify the root.
        """
        known = await self._known(mount)
        holder = await self._with_roles(known, self._holder(known))
        needed = least_policy.grants(holder)
        may = await known.may(needed)
        warnings = [*_about_kind(known.kind), *await _about_keys(known)]
        warnings += await self._about_room(known, mount)
        warnings += [
            f"the root is not allowed to call {', '.join(actions)} on {resource}: the least policy allows it"
            for resource, actions in may.denied.items()
        ]
        warnings += _about_size(holder)
        if may.failure is not None:
            warnings.append(f"IAM's simulator reported nothing about some actions: {may.failure.message}")
        policy = least_policy.document(needed)
        return RootCheck(known.identity, known.kind, may.verdicts, policy, tuple(warnings))

    async def role(self, role: Role) -> tuple[str, ...]:
        """Return warnings about a role on AWS; if AWS does not answer, one warning says so."""
        try:
            known = await self._known(role.mount)
        except LessorError as error:
            return (f"this role could not be checked on AWS: {error.message}",)
        looks = role_needs.looks(role)
        needed = role_needs.grants(role, self._holder(known))
        async with asyncio.TaskGroup() as group:
            looked = group.create_task(known.all([look.call for look in looks]))
            simulated = group.create_task(known.may(needed))
        warnings = unserved(known.kind, role)
        warnings += [
            warning
            for look, outcome in zip(looks, looked.result(), strict=True)
            if (warning := _about_look(look.what, outcome))
        ]
        may = simulated.result()
        warnings += [role_needs.denied(role, actions, resource) for resource, actions in may.denied.items()]
        if may.failure is not None:
            warnings.append(
                f"the root's permissions for this role could not be checked: {may.failure.message}"
            )
        return tuple(warnings)

    def _holder(self, known: _RootProbe) -> Holder:
        return Holder(
            known.identity.account,
            self._roots.instance,
            key_arn=known.key_arn,
            makes_tokens=known.kind in _MAKE_TOKENS,
        )

    async def _with_roles(self, known: _RootProbe, holder: Holder) -> Holder:
        """Return the holder with the mount's roles, and what its static roles work on."""
        mount, use = known.root.mount, RoleUse()
        async for role in iter_roles(self._store, mount):
            use.add(role)
        own, hops = list[str](), set[str]()
        async for static in iter_static_roles(self._store, mount):
            if static.assume_chain:
                hops.add(static.assume_chain[0].role_arn)
            else:
                own.append(static.user_name)
        found = await known.all([GetUser(name) for name in own[:MAX_LOOKS]])
        users = [outcome.value for outcome in found if isinstance(outcome, Done)]
        arns, seen = {user.arn for user in users}, {user.name for user in users}
        for name in own:
            if name not in seen:
                arns.update(least_policy.static_user_arns(holder.account, name))
        return replace(holder, use=use, static_arns=tuple(sorted(arns)), static_hops=tuple(sorted(hops)))

    async def _about_room(self, known: _RootProbe, name: str) -> list[str]:
        """Warn where the account is nearly full and the mount may make more users than still fit."""
        mount, outcome = await self._store.get_mount(name), await known.ask(GetAccountSummary())
        if mount is None or not isinstance(outcome, Done):
            return []
        users, quota = outcome.value.users, outcome.value.quota
        if users < NEARLY_FULL * quota or mount.max_users <= quota - users or not quota:
            return []
        room = f"room for {max(quota - users, 0)} more, and max_users of mount {name} is {mount.max_users}"
        return [f"the account has {users} of the {quota} IAM users of its quota: there is {room}"]

    async def _known(self, mount: str) -> _RootProbe:
        root = await self._roots.of(mount)
        until = asyncio.get_running_loop().time() + CHECK_SECONDS
        try:
            async with asyncio.timeout_at(until):
                identity = await self._roots.identity(root)
        except TimeoutError:
            raise AwsUnavailable("AWS did not identify the root in 5 s", retry_in=1.0) from None
        kind = kind_of(root.config, identity.arn)
        return _RootProbe(root, identity, kind, self._roots.caller(root, Priority.LOOK), until)


def _free(kind: RootKind) -> tuple[str, ...]:
    """Return the actions that such a root may call without being allowed to."""
    return least_policy.WITHOUT_PERMISSION if kind in _MAKE_TOKENS else least_policy.WITHOUT_PERMISSION[:1]


def _about_kind(kind: RootKind) -> list[str]:
    if kind is not RootKind.ACCOUNT_ROOT:
        return []
    return ["these are the keys of the account's root user: make an IAM user with the least policy instead"]


def _about_size(holder: Holder) -> list[str]:
    if not holder.is_cut:
        return []
    warning = (
        f"this mount needs more than {MAX_RESOURCES} users or roles of AWS, more than one policy holds: the"
        f" first {MAX_RESOURCES} were checked and are in the least policy; give the root a pattern for all"
    )
    return [warning]


async def _about_keys(known: _RootProbe) -> list[str]:
    """Warn of a second key, which leaves rotation no room (IAM and AWS STS quotas: two keys a user)."""
    if not known.key_arn:
        return []
    outcome = await known.ask(ListAccessKeys(known.key_arn.rpartition("/")[2]))
    if not isinstance(outcome, Done) or len(outcome.value) < 2:
        return []
    others = ", ".join(key for key in outcome.value if key != known.root.config.access_key)
    return [f"the root's user has a second access key, {others}: RotateRoot needs its place"]


def _about_look(what: str, outcome: Outcome[None]) -> str:
    if isinstance(outcome, Done):
        return ""
    if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.NO_SUCH_OTHER:
        return f"{what} does not exist on the root's account"
    said = outcome.aws.code if isinstance(outcome, AwsError) and outcome.aws else outcome.message
    return f"{what} could not be looked up: {said}"
