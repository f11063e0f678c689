"""Writes the lease of an issue: begins, activates, aborts or withdraws it.

After each commit the expiry timer gets the deadline of the lease.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lessor_server.domain import lease as steps
from lessor_server.domain.aws.errors import AwsCallFailed, AwsUnknown, for_caller
from lessor_server.domain.errors.base import (
    Aborted,
    AwsUnavailable,
    InternalError,
    LeaseTaken,
    LessorError,
    MountFull,
    RoleFull,
    RowUnreadable,
    StoreUnavailable,
)
from lessor_server.domain.events import Issued, IssueFailed
from lessor_server.domain.lease import Footprint, Intent, Lease, State
from lessor_server.domain.lease_id import RANDOM_BOUND, LeaseId, suffix_of
from lessor_server.domain.root import Root
from lessor_server.domain.ttl import GrantedTtl
from lessor_server.engine.aws.roots import IssueContext
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing.in_flight import InFlightIssue
from lessor_server.engine.issuing.request import IssueRequest
from lessor_server.engine.meter import ACTIVATE_PHASE, NO_METER, STORE_PHASE, Meter, PhaseTimer
from lessor_server.engine.ports import LeaseStore, Observer, Watch

STORE_RETRY_SECONDS: Final = 1.0
MAX_ROOM_SPAN: Final = timedelta(seconds=30)
"""A caller that finds a role or a mount full retries no later than this."""
MAX_ROOM_ROWS: Final = 256
MIN_ROOM_SECONDS: Final = 1.0

ISSUE_SPAN: Final = timedelta(minutes=3)
"""How long an intent is claimed. Calls are not repeated for so long, so no CreateUser is sent after it."""


class LeaseWriter:
    """The steps of a lease until a caller has its credential."""

    def __init__(
        self,
        store: LeaseStore,
        watch: Watch,
        notify: Observer,
        background: BackgroundTasks,
        rng: random.Random,
        meter: Meter = NO_METER,
    ) -> None:
        """Write to ``store``; ``rng`` draws the random part of every name."""
        self.meter = meter
        self._store = store
        self._watch = watch
        self._notify = notify
        self._background = background
        self._rng = rng

    def now(self) -> int:
        """Return the service's time in microseconds."""
        return self._store.now()

    def draw_suffix(self) -> str:
        """Draw the unique part of the names of a lease and its user."""
        return suffix_of(self.now() // 1000, self._rng.randrange(RANDOM_BOUND))

    async def begin(self, intent: Intent) -> Lease:
        """Store an INTENT; raises the errors of ``LeaseStore.begin``."""
        try:
            with PhaseTimer(self.meter, STORE_PHASE):
                lease = await self._store.begin(intent, ISSUE_SPAN)
        except (RoleFull, MountFull) as full:
            whole = isinstance(full, MountFull)
            full.retry_in = await self._seconds_until_room(f"{intent.mount}/" if whole else intent.id)
            raise
        self._watch(lease.id, lease.due_us)
        return lease

    async def _seconds_until_room(self, place: str) -> float:
        """Return when the next lease of a mount or of a lease's role ends, at most 30 s."""
        prefix = place[: place.rindex("/") + 1]
        for lease_id, due_us in await self._store.list_due_within(MAX_ROOM_SPAN, MAX_ROOM_ROWS):
            if lease_id.startswith(prefix):
                return min(max((due_us - self.now()) / 1e6, MIN_ROOM_SECONDS), MAX_ROOM_SPAN.total_seconds())
        return MAX_ROOM_SPAN.total_seconds()

    def aborting(self, lease: Lease, asked: IssueRequest) -> _Aborting:
        """Return what aborts the lease if its block fails in a way that leaves its row unknown."""
        return _Aborting(self, lease, asked)

    def abort_in_background(self, lease: Lease, asked: IssueRequest) -> None:
        """Abort the lease as soon as the store works again."""
        self._background.start(self._abort_when_store_recovers(lease, asked), lasting=True)

    async def activate(
        self, lease: Lease, key_id: str, in_flight: InFlightIssue, ends_us: int = 0
    ) -> Lease | None:
        """Make the lease ACTIVE: for a minute if no caller waits, for its ttl if a repeat comes meanwhile."""
        active = steps.activate(lease, key_id, self.now(), ends_us=ends_us, undelivered=in_flight.left)
        with PhaseTimer(self.meter, ACTIVATE_PHASE):
            if not await self._write(lease, active):
                return None
        if active.undelivered and not in_flight.left:
            return await self.replace_key(active, key_id)
        return active

    async def replace_key(self, lease: Lease, key_id: str, bound_us: int | None = None) -> Lease | None:
        """Replace the key of the lease; None if the lease has changed or ended.

        A session then ends at ``bound_us`` at the latest.
        """
        after = steps.replace_key(lease, key_id, bound_us)
        return after if await self._write(lease, after) else None

    async def reserve(self, lease: Lease) -> Lease:
        """Return the lease in a new generation: of several processes only the last one can reissue it.

        The others cannot write their keys to the row, so no delivered key is deleted as a stray.
        """
        if lease.undelivered:
            reserved = steps.mark_undelivered(lease, self.now())
        else:
            reserved = steps.replace_key(lease, lease.access_key_id)
        if not await self._write(lease, reserved):
            raise Aborted(f"lease {lease.id} is being handed out by another process", retry_in=0.5)
        return reserved

    async def withdraw(self, lease: Lease, asked: IssueRequest) -> None:
        """Withdraw a credential whose caller left: immediately, or after a minute if a repeat may come."""
        self._notify(IssueFailed(lease.id, "its caller went away", ""))
        try:
            if asked.request:
                await self._write(lease, steps.mark_undelivered(lease, self.now()))
            elif (revoked := await self._store.revoke(lease.id)) is not None:
                self._watch(revoked.id, revoked.due_us)
        except StoreUnavailable:
            return  # the lease is durable and lives to its expiry at most

    async def abort(self, lease: Lease, error: LessorError, last_create_us: int) -> None:
        """Make the INTENT due for revocation immediately, even if it was claimed meanwhile."""
        self._notify(IssueFailed(lease.id, error.message, error.detail))
        if not await self._write(lease, steps.abort(lease, error.message, last_create_us, self.now())):
            await self._reopen(lease, last_create_us)

    def report_issued(self, lease: Lease) -> None:
        """Report that the lease's key is delivered."""
        self._notify(Issued(lease.id, lease.access_key_id, lease.owner, lease.expires_us, lease.reason))

    async def _write(self, before: Lease, after: Lease) -> bool:
        written = await self._store.write(before, after)
        if written:
            self._watch(after.id, after.due_us)
        return written

    async def _reopen(self, lease: Lease, last_create_us: int) -> None:
        """Set a row that was claimed meanwhile back to REVOKING: its user may have been created late."""
        if not lease.is_session:
            await self._store.reopen(lease.id, last_create_us)
            self._watch(lease.id, self.now())

    async def _abort_when_store_recovers(self, lease: Lease, asked: IssueRequest) -> None:
        """Abort a lease as soon as the store works again, not only when its claim ends."""
        while self.now() < lease.due_us:
            await asyncio.sleep(STORE_RETRY_SECONDS)
            try:
                await self._abort_unknown(lease, asked)
            except StoreUnavailable:
                continue
            return

    async def _abort_unknown(self, lease: Lease, asked: IssueRequest) -> None:
        """Abort a lease although the result of the last write is unknown.

        The row may be ACTIVE: then no caller has its key. It may be claimed: then its user is looked for.
        """
        aborted = steps.abort(lease, "the store failed", lease.last_create_us, self.now())
        if await self._write(lease, aborted):
            return
        current = await self._store.get(lease.id)
        if current is None or current.state is not State.ACTIVE:
            await self._reopen(lease, lease.last_create_us)
        elif current.generation == aborted.generation:  # nothing happened to it since
            await self.withdraw(current, asked)


@dataclass(slots=True)
class _Aborting:
    """Aborts a lease if the block fails in a way that leaves its row unknown."""

    writer: LeaseWriter
    lease: Lease
    asked: IssueRequest

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Abort the lease after such a failure."""
        if isinstance(error, (StoreUnavailable, InternalError, RowUnreadable)):
            self.writer.abort_in_background(self.lease, self.asked)


def intent(
    asked: IssueRequest,
    context: IssueContext,
    root: Root,
    *,
    grant: GrantedTtl,
    footprint: Footprint,
    suffix: str,
) -> Intent:
    """Return the intent of a lease that may begin."""
    return Intent(
        id=str(LeaseId(context.mount.name, context.role.name, suffix)),
        mount=context.mount.name,
        role=context.role.name,
        credential_type=context.role.credential_type,
        owner=asked.owner,
        footprint=footprint,
        ttl=grant.ttl,
        max_ttl=grant.max_ttl,
        max_users=context.mount.max_users,
        max_leases=context.role.max_leases,
        root_version=root.version,
        request=asked.request,
        reason=asked.reason,
        policy_rule=asked.grant.pattern,
        rule_max_leases=asked.grant.limits.max_leases,
    )


def not_issued(lease: Lease) -> LeaseTaken:
    """Return the error of a lease that was revoked, or whose caller left, before it was ACTIVE."""
    return LeaseTaken(f"lease {lease.id} was revoked, or its caller left, while it was being created")


def to_caller_error(error: LessorError) -> LessorError:
    """Return the error that a caller gets for a failed call or a lost answer."""
    if not isinstance(error, AwsUnknown) or isinstance(error, AwsCallFailed):
        return for_caller(error)
    lost = AwsUnavailable(
        f"{error.message}; credentials that AWS may have created reach nobody", retry_in=1.0
    )
    lost.aws = error.aws
    return lost
