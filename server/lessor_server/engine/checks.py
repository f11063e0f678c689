"""What a root is and may do, and what a role would meet on AWS: asked without changing anything.

All questions go out at once and share one deadline; what AWS did not answer in time is not known, and said
to be so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeVar

from lessor_server.domain import least_policy, role_needs
from lessor_server.domain.aws_errors import AwsError, AwsRefused, Refusal
from lessor_server.domain.calls import Call, Identity, ListAccessKeys
from lessor_server.domain.errors import AwsUnavailable, LessorError
from lessor_server.domain.least_policy import Grant, Holder
from lessor_server.domain.looks import SimulatePrincipalPolicy
from lessor_server.domain.policy import JsonValue
from lessor_server.domain.role import Role
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import RootKind, kind_of, principal_of, unserved
from lessor_server.engine.ports import ConfigStore
from lessor_server.engine.roots import Roots
from lessor_server.engine.rounds import Done, Outcome, Rounds

T = TypeVar("T")

CHECK_SECONDS = 5.0
PAGE = 1000


class Verdict(IntEnum):
    """Say whether a root may do something, as far as IAM's simulator told; the greater outweighs."""

    ALLOWED = 0
    UNKNOWN = 1
    DENIED = 2


@dataclass(frozen=True, slots=True)
class RootCheck:
    """Hold what was found out about a root; ``verdicts`` by action, ``policy`` is the least it needs."""

    identity: Identity
    kind: RootKind
    verdicts: dict[str, Verdict]
    policy: dict[str, JsonValue]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """The root that is looked at, who AWS says it is, and until when (the loop's time) it may be asked."""

    root: Root
    identity: Identity
    kind: RootKind
    rounds: Rounds
    until: float

    async def ask(self, call: Call[T]) -> Outcome[T]:
        """Send one call; past the deadline its outcome is that AWS did not answer."""
        try:
            async with asyncio.timeout_at(self.until):
                return await self.rounds.call(call)
        except TimeoutError:
            return AwsUnavailable(f"AWS did not answer within {CHECK_SECONDS:g} s", retry_in=1.0)

    async def all(self, calls: Sequence[Call[T]]) -> list[Outcome[T]]:
        """Send all calls at once and wait for every one of them."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.ask(call)) for call in calls]
        return [task.result() for task in tasks]


class Checks:
    """Looks at roots and roles on AWS."""

    def __init__(self, store: ConfigStore, roots: Roots) -> None:
        """Ask with the mounts' own ``roots``; ``store`` knows which roles they need it for."""
        self._store = store
        self._roots = roots

    async def root(self, mount: str) -> RootCheck:
        """Find out who a mount's root is and what it may do.

        Raises:
            RootNotSet: The mount has no root.
            RootRefused, AwsUnavailable: AWS does not say who the root is.
        """
        known = await self._known(mount)
        holder = replace(self._holder(known), role_arns=await self._role_arns(mount))
        needed = least_policy.grants(holder)
        verdicts, denied, failure = await _verdicts(known, needed)
        warnings = [*_about_kind(known.kind), *await _about_keys(known, holder)]
        warnings += [
            f"the root may not call {', '.join(actions)} on {resource}: the least policy allows it"
            for resource, actions in denied.items()
        ]
        if failure is not None:
            warnings.append(f"IAM's simulator told nothing about some actions: {failure.message}")
        policy = least_policy.document(needed)
        return RootCheck(known.identity, known.kind, verdicts, policy, tuple(warnings))

    async def role(self, role: Role) -> tuple[str, ...]:
        """Say what a role would meet on AWS; where AWS cannot be asked, say just that."""
        try:
            known = await self._known(role.mount)
        except LessorError as error:
            return (f"AWS was not asked what it thinks of this role: {error.message}",)
        looks = role_needs.looks(role)
        needed = role_needs.grants(role, self._holder(known))
        async with asyncio.TaskGroup() as group:
            looked = group.create_task(known.all([look.call for look in looks]))
            simulated = group.create_task(_verdicts(known, needed))
        warnings = unserved(known.kind, role)
        warnings += [
            warning
            for look, outcome in zip(looks, looked.result(), strict=True)
            if (warning := _about_look(look.what, outcome))
        ]
        _, denied, failure = simulated.result()
        warnings += [role_needs.denied(role, actions, resource) for resource, actions in denied.items()]
        if failure is not None:
            warnings.append(f"what the root may do for this role could not be looked up: {failure.message}")
        return tuple(warnings)

    def _holder(self, known: _Known) -> Holder:
        is_user = known.kind is RootKind.USER_KEYS
        return Holder(known.identity.account, self._roots.instance, known.identity.arn if is_user else "")

    async def _role_arns(self, mount: str) -> tuple[str, ...]:
        """Return what the mount's roles may assume, each ARN or pattern once."""
        found: set[str] = set()
        after, page = "", await self._store.list_roles(mount, "", PAGE)
        while page:
            found.update(arn for role in page for arn in role.role_arns)
            after = page[-1].name
            page = await self._store.list_roles(mount, after, PAGE)
        return tuple(sorted(found))

    async def _known(self, mount: str) -> _Known:
        root = await self._roots.of(mount)
        until = asyncio.get_running_loop().time() + CHECK_SECONDS
        try:
            async with asyncio.timeout_at(until):
                identity = await self._roots.identity(root)
        except TimeoutError:
            raise AwsUnavailable("AWS did not say in 5 s who the root is", retry_in=1.0) from None
        kind = kind_of(root.config, identity.arn)
        return _Known(root, identity, kind, self._roots.rounds(root), until)


async def _verdicts(
    known: _Known, needed: Sequence[Grant]
) -> tuple[dict[str, Verdict], dict[str, list[str]], LessorError | None]:
    """Return the verdict on each action, the denied ones by resource, and why some are not known.

    An action that several grants need has the verdict of the first of them, the worst on its resources.
    """
    principal = principal_of(known.root.config, known.identity.arn)
    verdicts: dict[str, Verdict] = dict.fromkeys(_free(known.kind), Verdict.ALLOWED)
    denied: dict[str, list[str]] = {}
    failure: LessorError | None = None
    if known.kind is RootKind.ACCOUNT_ROOT:
        allowed = {action: Verdict.ALLOWED for grant in needed for action in grant.actions}
        return allowed | verdicts, denied, None
    asked = [(grant, resource) for grant in needed for resource in grant.resources]
    calls = [SimulatePrincipalPolicy(principal, grant.actions, (resource,)) for grant, resource in asked]
    first: dict[str, Grant] = {}
    for (grant, resource), outcome in zip(asked, await known.all(calls), strict=True):
        told = dict(outcome.value) if isinstance(outcome, Done) else {}
        failure = failure or (outcome if isinstance(outcome, LessorError) else None)
        for action in grant.actions:
            verdict = _verdict(told.get(action))
            if first.setdefault(action, grant) is grant:
                verdicts[action] = max(verdict, verdicts.get(action, Verdict.ALLOWED))
            if verdict is Verdict.DENIED:
                denied.setdefault(resource, []).append(action)
    return verdicts, denied, failure


def _verdict(told: str | None) -> Verdict:
    if told is None:
        return Verdict.UNKNOWN
    return Verdict.ALLOWED if told == "allowed" else Verdict.DENIED


def _free(kind: RootKind) -> tuple[str, ...]:
    """Return the actions that such a root may call without being allowed to."""
    makes_tokens = kind in (RootKind.USER_KEYS, RootKind.ACCOUNT_ROOT)
    return least_policy.WITHOUT_PERMISSION if makes_tokens else least_policy.WITHOUT_PERMISSION[:1]


def _about_kind(kind: RootKind) -> list[str]:
    if kind is not RootKind.ACCOUNT_ROOT:
        return []
    return ["these are the keys of the account's root user: make an IAM user with the least policy instead"]


async def _about_keys(known: _Known, holder: Holder) -> list[str]:
    """Warn of a second key, which leaves rotation no room (IAM and AWS STS quotas: two keys a user)."""
    if not (holder.user_arn and known.root.config.access_key):
        return []
    outcome = await known.ask(ListAccessKeys(holder.user_arn.rpartition("/")[2]))
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
