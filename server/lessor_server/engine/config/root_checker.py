"""Checks the identity and permissions of roots, and roles, on AWS, by read-only calls.

The calls have the lowest priority, a few at a time, and share one deadline; results that are missing then are
reported as unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import product
from typing import TypeVar

from lessor_server.domain.aws import least_policy, role_needs
from lessor_server.domain.aws.errors import AwsError, AwsRefused, Refusal
from lessor_server.domain.aws.iam_calls import (
    Call,
    GetAccountSummary,
    GetUser,
    ListAccessKeys,
    SimulatePrincipalPolicy,
)
from lessor_server.domain.aws.least_policy import MAX_RESOURCES, AllowedActions, Holder, RoleUse
from lessor_server.domain.aws.sts_calls import AwsIdentity
from lessor_server.domain.errors.base import AwsUnavailable, LessorError
from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.role import Role
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import RootKind, kind_of, principal_of, unserved
from lessor_server.engine.aws.caller import AwsCaller, Outcome
from lessor_server.engine.aws.pages import PageCount
from lessor_server.engine.aws.rate_limiter import Priority
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.paging import iter_roles, iter_static_roles
from lessor_server.engine.ports import Store

T = TypeVar("T")

CHECK_SECONDS = 5.0
MAX_CONCURRENT = 4
RESOURCES_PER_CALL = 50
"""Resources in one call; the IAM API Reference limits the pages of the answer, not the request."""
MAX_USER_READS = 40
"""The number of static roles whose user's ARN is looked up; others become patterns, to save time."""
NEARLY_FULL = 0.9
"""The share of its quota of users from which on an account counts as nearly full."""
_MAKE_TOKENS = (RootKind.USER_KEYS, RootKind.ACCOUNT_ROOT)


class Verdict(IntEnum):
    """The simulator's result for an action of a root; of several results the greatest counts."""

    ALLOWED = 0
    UNKNOWN = 1
    DENIED = 2


@dataclass(slots=True)
class SimulationResult:
    """Hold the verdict on each action, the denied ones by resource, and why some are unknown.

    An action that several grants need has the worst verdict on the resources of the first of them.
    """

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    denied: dict[str, list[str]] = field(default_factory=dict)
    failure: LessorError | None = None


@dataclass(frozen=True, slots=True)
class RootCheck:
    """Hold the result of a check of a root: ``verdicts`` by action, ``policy`` is the least that it needs."""

    identity: AwsIdentity
    kind: RootKind
    verdicts: dict[str, Verdict]
    policy: dict[str, JsonValue]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _RootProbe:
    """The root under check, its identity on AWS, and the deadline (the loop's time) for calls."""

    root: Root
    identity: AwsIdentity
    kind: RootKind
    caller: AwsCaller
    until: float
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT))

    async def call(self, call: Call[T]) -> Outcome[T]:
        """Send one call; after the deadline its outcome is that AWS did not answer."""
        try:
            async with asyncio.timeout_at(self.until), self.room:
                return await self.caller.call(call)
        except TimeoutError:
            return AwsUnavailable(f"AWS did not answer within {CHECK_SECONDS:g} s", retry_in=1.0)

    async def call_all(self, calls: Sequence[Call[T]]) -> list[Outcome[T]]:
        """Send all calls, a few at a time, and wait for every one of them."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.call(call)) for call in calls]
        return [task.result() for task in tasks]

    @property
    def key_arn(self) -> str:
        """Return the user of the root's stored key; empty if there is no such key to rotate."""
        return self.identity.arn if self.kind is RootKind.USER_KEYS and self.root.config.access_key else ""

    async def simulate(self, needed: Sequence[AllowedActions]) -> SimulationResult:
        """Check which of ``needed`` the root is allowed; the account's own root user may do everything."""
        free = _always_allowed(self.kind)
        if self.kind is RootKind.ACCOUNT_ROOT:
            all_of_it = (action for grant in needed for action in grant.actions)
            return SimulationResult(dict.fromkeys((*all_of_it, *free), Verdict.ALLOWED))
        found = await self._ask_simulator(needed)
        found.verdicts = dict.fromkeys(free, Verdict.ALLOWED) | found.verdicts
        return found

    async def _ask_simulator(self, needed: Sequence[AllowedActions]) -> SimulationResult:
        """Call IAM's simulator for grants, with many resources in one call."""
        principal = principal_of(self.root.config, self.identity.arn)
        questions = [
            (grant, SimulatePrincipalPolicy(principal, grant.actions, resources))
            for grant in needed
            for resources in _parts(grant.resources)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._read_verdicts(call)) for _, call in questions]
        found, first = SimulationResult(), dict[str, AllowedActions]()
        for (grant, call), task in zip(questions, tasks, strict=True):
            answer, failure = task.result()
            found.failure = found.failure or failure
            for resource, action in product(call.resource_arns, grant.actions):
                verdict = answer.get((action, resource), Verdict.UNKNOWN)
                if first.setdefault(action, grant) is grant:
                    found.verdicts[action] = max(verdict, found.verdicts.get(action, Verdict.ALLOWED))
                if verdict is Verdict.DENIED:
                    found.denied.setdefault(resource, []).append(action)
        return found

    async def _read_verdicts(
        self, call: SimulatePrincipalPolicy
    ) -> tuple[dict[tuple[str, str], Verdict], LessorError | None]:
        """Return the verdicts by action and resource of all pages, and the failure that ended them."""
        found: dict[tuple[str, str], Verdict] = {}
        count = PageCount(call.action)
        while True:
            outcome = await self.call(call)
            if isinstance(outcome, LessorError):
                return found, outcome
            for action, named, said in outcome.verdicts:
                # If one resource was sent, the answer is about it, however AWS spells it.
                resource = named if len(call.resource_arns) > 1 else call.resource_arns[0]
                verdict = Verdict.ALLOWED if said == "allowed" else Verdict.DENIED
                found[action, resource] = max(verdict, found.get((action, resource), verdict))
            if not outcome.marker:
                return found, None
            if not count.may_go_on(outcome.marker):
                return found, count.endless()
            call = replace(call, marker=outcome.marker)


class RootChecker:
    """Checks roots and roles on AWS."""

    def __init__(self, store: Store, roots: Roots) -> None:
        """Call AWS with the mounts' own ``roots``; ``store`` has the roles of each mount."""
        self._store = store
        self._roots = roots

    async def check_root(self, mount: str) -> RootCheck:
        """Check the identity and permissions of a mount's root.

        Raises:
            RootNotSet: The mount has no root.
            RootRefused, AwsUnavailable: AWS does not identify the root.
        """
        probe = await self._open_probe(mount)
        holder = await self._add_roles(probe, self._holder(probe))
        needed = least_policy.grants(holder)
        may = await probe.simulate(needed)
        warnings = [*_kind_warnings(probe.kind), *await _warn_of_second_key(probe)]
        warnings += await self._warn_of_quota(probe, mount)
        warnings += [
            f"the root is not allowed to call {', '.join(actions)} on {resource}: the least policy allows it"
            for resource, actions in may.denied.items()
        ]
        warnings += _size_warnings(holder)
        if may.failure is not None:
            warnings.append(f"IAM's simulator reported nothing about some actions: {may.failure.message}")
        policy = least_policy.document(needed)
        return RootCheck(probe.identity, probe.kind, may.verdicts, policy, tuple(warnings))

    async def check_role(self, role: Role) -> tuple[str, ...]:
        """Return warnings about a role on AWS; if AWS does not answer, one warning says so."""
        try:
            probe = await self._open_probe(role.mount)
        except LessorError as error:
            return (f"this role could not be checked on AWS: {error.message}",)
        checks = role_needs.existence_checks(role)
        needed = role_needs.role_grants(role, self._holder(probe))
        async with asyncio.TaskGroup() as group:
            existing = group.create_task(probe.call_all([check.call for check in checks]))
            simulated = group.create_task(probe.simulate(needed))
        warnings = unserved(probe.kind, role)
        warnings += [
            warning
            for check, outcome in zip(checks, existing.result(), strict=True)
            if (warning := _existence_warning(check.what, outcome))
        ]
        may = simulated.result()
        warnings += [role_needs.denied(role, actions, resource) for resource, actions in may.denied.items()]
        if may.failure is not None:
            warnings.append(
                f"the root's permissions for this role could not be checked: {may.failure.message}"
            )
        return tuple(warnings)

    def _holder(self, probe: _RootProbe) -> Holder:
        return Holder(
            probe.identity.account,
            self._roots.instance,
            key_arn=probe.key_arn,
            makes_tokens=probe.kind in _MAKE_TOKENS,
        )

    async def _add_roles(self, probe: _RootProbe, holder: Holder) -> Holder:
        """Return the holder with the needs of the mount's roles and static roles."""
        mount, use = probe.root.mount, RoleUse()
        async for role in iter_roles(self._store, mount):
            use.add(role)
        own, hops = list[str](), set[str]()
        async for static in iter_static_roles(self._store, mount):
            if static.assume_chain:
                hops.add(static.assume_chain[0].role_arn)
            else:
                own.append(static.user_name)
        found = await probe.call_all([GetUser(name) for name in own[:MAX_USER_READS]])
        users = [outcome for outcome in found if not isinstance(outcome, LessorError)]
        arns, seen = {user.arn for user in users}, {user.name for user in users}
        for name in own:
            if name not in seen:
                arns.update(least_policy.static_user_arns(holder.account, name))
        return replace(holder, use=use, static_arns=tuple(sorted(arns)), static_hops=tuple(sorted(hops)))

    async def _warn_of_quota(self, probe: _RootProbe, name: str) -> list[str]:
        """Warn if the account is nearly full and the mount may create more users than fit."""
        mount, outcome = await self._store.get_mount(name), await probe.call(GetAccountSummary())
        if mount is None or isinstance(outcome, LessorError):
            return []
        users, quota = outcome.users, outcome.quota
        if users < NEARLY_FULL * quota or mount.max_users <= quota - users or not quota:
            return []
        room = f"room for {max(quota - users, 0)} more, and max_users of mount {name} is {mount.max_users}"
        return [f"the account has {users} of the {quota} IAM users of its quota: there is {room}"]

    async def _open_probe(self, mount: str) -> _RootProbe:
        root = await self._roots.get(mount)
        until = asyncio.get_running_loop().time() + CHECK_SECONDS
        try:
            async with asyncio.timeout_at(until):
                identity = await self._roots.identity(root)
        except TimeoutError:
            raise AwsUnavailable("AWS did not identify the root in 5 s", retry_in=1.0) from None
        kind = kind_of(root.config, identity.arn)
        return _RootProbe(root, identity, kind, self._roots.caller(root, Priority.CHECK), until)


def _parts(resources: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (resources[at : at + RESOURCES_PER_CALL] for at in range(0, len(resources), RESOURCES_PER_CALL))


def _always_allowed(kind: RootKind) -> tuple[str, ...]:
    """Return the actions that such a root may call without a permission."""
    return least_policy.WITHOUT_PERMISSION if kind in _MAKE_TOKENS else least_policy.WITHOUT_PERMISSION[:1]


def _kind_warnings(kind: RootKind) -> list[str]:
    if kind is not RootKind.ACCOUNT_ROOT:
        return []
    return ["these are the keys of the account's root user: create an IAM user with the least policy instead"]


def _size_warnings(holder: Holder) -> list[str]:
    if not holder.is_cut:
        return []
    warning = (
        f"this mount needs more than {MAX_RESOURCES} users or roles of AWS, more than one policy holds: the"
        f" first {MAX_RESOURCES} were checked and are in the least policy; give the root a pattern for all"
    )
    return [warning]


async def _warn_of_second_key(probe: _RootProbe) -> list[str]:
    """Warn of a second key, which leaves no room for rotation (IAM and AWS STS quotas: two keys a user)."""
    if not probe.key_arn:
        return []
    outcome = await probe.call(ListAccessKeys(probe.key_arn.rpartition("/")[2]))
    if isinstance(outcome, LessorError) or len(outcome) < 2:
        return []
    others = ", ".join(key for key in outcome if key != probe.root.config.access_key)
    return [f"the root's user has a second access key, {others}: RotateRoot needs its place"]


def _existence_warning(what: str, outcome: Outcome[None]) -> str:
    if not isinstance(outcome, LessorError):
        return ""
    if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.NO_SUCH_OTHER:
        return f"{what} does not exist on the root's account"
    said = outcome.aws.code if isinstance(outcome, AwsError) and outcome.aws else outcome.message
    return f"{what} could not be looked up: {said}"
