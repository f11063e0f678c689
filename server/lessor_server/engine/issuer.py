"""Issues credentials: intent, CreateUser, all the rest at once, ACTIVE, and only then the secret leaves.

The work runs as a task of the engine's group and answers through a future, so that a caller who goes
away can't leave a half-made user. Whatever fails, the row is released and the Keeper undoes it by the
ordinary revocation; there is no second way back.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta

from lessor_server.domain import names, plans, ttl
from lessor_server.domain.aws_errors import AwsRefused, Refusal, for_caller
from lessor_server.domain.calls import MadeKey
from lessor_server.domain.errors import (
    DeadlineExceeded,
    LeaseTaken,
    LessorError,
    StoreUnavailable,
    Unimplemented,
)
from lessor_server.domain.events import Issued, IssueFailed
from lessor_server.domain.lease import Claim, Footprint, Intent, Lease
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret
from lessor_server.engine.ports import LeaseStore
from lessor_server.engine.roots import Ground, Roots
from lessor_server.engine.rounds import Done, Outcome, failure
from lessor_server.engine.signals import Signals
from lessor_server.engine.work import Work

LEAST_SECONDS = 2.0
"""With less time left than this an issue is not begun."""

ISSUE_SPAN = timedelta(minutes=2)
"""How long an intent is claimed: longer than its calls can take, so no CreateUser is sent after it.

A call waits 10 s in its lane, is repeated for 30 s at most, and is answered or given up in 7 s.
"""

Answer = asyncio.Future["Credentials"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for; ``ttl`` None asks for the default."""

    mount: str
    role: str
    owner: str
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """An issued credential: the only value that ever holds its secret."""

    lease: Lease
    secret: Secret
    arn: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Order:
    """An issue that may begin."""

    role: Role
    root: Root
    intent: Intent
    warnings: tuple[str, ...]


class Issuer:
    """Makes IAM users and hands out their keys."""

    def __init__(
        self, store: LeaseStore, roots: Roots, work: Work, signals: Signals, rng: random.Random
    ) -> None:
        """Issue from ``store`` with ``roots``; ``rng`` draws the random part of every name."""
        self._store = store
        self._roots = roots
        self._work = work
        self._signals = signals
        self._rng = rng

    async def generate(self, wish: Wish, seconds: float) -> Credentials:
        """Return a fresh credential within ``seconds``, the time that the caller has left.

        Raises:
            NotFound, RootNotSet, MountDisabling, MountFull, RoleFull: It may not begin.
            AwsUnavailable, AwsRefused, RootRefused, RoleNotUsable, AwsQuota: AWS did not make it.
            DeadlineExceeded: Time ran out; what was made is being revoked.
        """
        if seconds < LEAST_SECONDS:
            raise DeadlineExceeded(f"an issue takes up to {LEAST_SECONDS:g} s, and {seconds:.1f} s are left")
        answer: Answer = asyncio.get_running_loop().create_future()
        self._work.start(self._issue(wish, answer))
        taken = False
        try:
            async with asyncio.timeout(seconds):
                credentials = await answer
                taken = True
                return credentials
        except TimeoutError:
            message = "the credential was not ready in time; what was made is being revoked"
            raise DeadlineExceeded(message) from None
        finally:
            if not taken and answer.done() and not answer.cancelled() and answer.exception() is None:
                self._work.start(self._take_back(answer.result().lease))

    async def _issue(self, wish: Wish, answer: Answer) -> None:
        """Make one credential and set ``answer``; never raise for work's sake."""
        try:
            order = await self._order(wish)
            claim = await self._store.begin(order.intent, ISSUE_SPAN)
            self._signals.watch(claim.id, claim.lease.due_us)
            credentials = await self._make(order, claim, answer)
        except LessorError as error:
            if not answer.done():
                answer.set_exception(error)
            return
        if answer.done():
            await self._take_back(credentials.lease)
        else:
            answer.set_result(credentials)

    async def _order(self, wish: Wish) -> _Order:
        """Read what the issue stands on, and draw its names."""
        ground = await self._roots.ground(wish.mount, wish.role)
        if ground.role.credential_type is not CredentialType.IAM_USER:
            kind = ground.role.credential_type.name
            raise Unimplemented(
                f"credential_type {kind} is not served by this version", subject="credential_type"
            )
        self._roots.lane(ground.root).require_open()
        root = await self._roots.bound(ground.root)
        self._roots.lane(root).require_open()
        grant = ttl.grant(wish.ttl, ground.role, ground.mount)
        suffix = names.suffix_of(self._store.now() // 1000, self._rng.randrange(names.RANDOM_BOUND))
        intent = Intent(
            id=str(names.LeaseId(ground.mount.name, ground.role.name, suffix)),
            mount=ground.mount.name,
            role=ground.role.name,
            credential_type=ground.role.credential_type,
            owner=wish.owner,
            footprint=self._footprint(ground, root, suffix),
            ttl=grant.ttl,
            max_ttl=grant.max_ttl,
            max_users=ground.mount.max_users,
            max_leases=ground.role.max_leases,
            root_version=root.version,
        )
        return _Order(ground.role, root, intent, tuple(grant.warnings))

    def _footprint(self, ground: Ground, root: Root, suffix: str) -> Footprint:
        role = ground.role
        return Footprint(
            account=root.account,
            user_name=names.user_name(root.config.username_template, ground.mount.name, role.name, suffix),
            user_path=names.user_path(self._roots.instance, role.user_path),
            inline_policy=plans.INLINE_POLICY if role.policy_document else "",
            policy_arns=role.policy_arns,
            groups=role.iam_groups,
        )

    async def _make(self, order: _Order, claim: Claim, answer: Answer) -> Credentials:
        """Run the two rounds and activate the lease; leave the row to the Keeper if anything fails."""
        rounds = self._roots.rounds(order.root)
        tags = plans.tags_of(self._roots.instance, claim.id, order.role)
        plan = plans.issue(order.role, claim.lease.footprint, tags)
        if answer.done():
            raise await self._release(claim, LeaseTaken("its caller went away"), 0)
        made = await rounds.call(plan.create)
        if not isinstance(made, Done):
            raise await self._release(claim, made, 0 if _without_effect(made) else self._store.now())
        created_us = self._store.now()
        if answer.done() or not await self._store.holds(claim):
            raise await self._release(claim, LeaseTaken("the claim was lost"), created_us)
        outcomes = await rounds.round((plan.key, *plan.furnish), lambda: not answer.done())
        error = failure(outcomes)
        if error is not None:
            raise await self._release(claim, error, created_us)
        key = _key(outcomes[0])
        lease = await self._store.activate(claim, key.access_key_id)
        if lease is None:
            raise await self._release(claim, LeaseTaken("the claim was lost"), created_us)
        self._signals.watch(lease.id, lease.due_us)
        self._signals.notify(Issued(lease.id, key.access_key_id, lease.owner, lease.expires_us))
        return Credentials(lease, key.secret, made.value.arn, order.warnings)

    async def _release(self, claim: Claim, error: LessorError, last_create_us: int) -> LessorError:
        """Put the row up for revocation, due at once; return the error that the caller gets."""
        self._signals.notify(IssueFailed(claim.id, error.message, error.detail))
        if not await self._store.release(claim, error.message, last_create_us):
            await self._store.reopen(claim.id, last_create_us)
        self._signals.watch(claim.id, self._store.now())
        return for_caller(error)

    async def _take_back(self, lease: Lease) -> None:
        """Revoke a lease whose caller went away before the answer."""
        self._signals.notify(IssueFailed(lease.id, "its caller went away", ""))
        try:
            await self._store.revoke(lease.id)
        except StoreUnavailable:
            return  # the lease is durable and lives to its expiry at most
        self._signals.watch(lease.id, self._store.now())


def _without_effect(outcome: Outcome[object]) -> bool:
    """Tell whether a failed CreateUser surely made no user."""
    if isinstance(outcome, AwsRefused):
        return outcome.refusal is not Refusal.ALREADY_EXISTS
    return not getattr(outcome, "sent", False)


def _key(outcome: Outcome[object]) -> MadeKey:
    if isinstance(outcome, Done) and isinstance(outcome.value, MadeKey):
        return outcome.value
    raise AssertionError("CreateAccessKey answers with a key")
