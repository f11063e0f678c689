"""Operations on existing leases: look up, list, count, renew, revoke."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from lessor_server.domain import lease as steps
from lessor_server.domain import ttl
from lessor_server.domain.access.issue_limits import NO_LIMITS, IssueLimits
from lessor_server.domain.errors.access import NotYourLease
from lessor_server.domain.errors.base import LessorError, NotFound, StoreUnavailable
from lessor_server.domain.errors.preconditions import (
    LeaseAbandoned,
    LeaseExpired,
    LeaseRevoking,
    NotRenewable,
)
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.events import IssueFailed, Renewed, RevocationAsked
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import IdRange, LeaseId
from lessor_server.engine.ports import Observer, Store, Watch
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.store_types import LeaseCount

POLL_SECONDS = RETRY_SECONDS = 1.0


class Outcome(Enum):
    """The result of a revocation for the caller."""

    ACCEPTED = "ACCEPTED"
    GONE = "GONE"
    ALREADY_GONE = "ALREADY_GONE"
    UNKNOWN = "UNKNOWN"
    FORGOTTEN = "FORGOTTEN"


@dataclass(frozen=True, slots=True)
class Revocation:
    """The answer to a revocation; ``last_error`` says why it is not GONE yet.

    A session that is FORGOTTEN works until ``works_until_us``, 0 if none was issued.
    """

    outcome: Outcome
    last_error: str = ""
    works_until_us: int = 0


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewed lease, the time granted from now, and warnings about caps."""

    lease: Lease
    ttl: timedelta
    warnings: tuple[str, ...]


class Leases:
    """Reads and changes leases on behalf of callers."""

    def __init__(self, store: Store, queue: RevocationQueue, watch: Watch, notify: Observer) -> None:
        """Work on ``store``."""
        self._store = store
        self._queue = queue
        self._watch = watch
        self._notify = notify

    def now(self) -> int:
        """Return the service's time in microseconds."""
        return self._store.now()

    async def lookup(self, lease_id: LeaseId, only_owner: str | None = None) -> Lease:
        """Return a lease in any state, tombstones too, or raise ``NotFound``.

        Raises:
            NotYourLease: The lease is not of ``only_owner``, or unknown: here and below that is one answer.
        """
        await self.require_owned(lease_id, only_owner)
        return await self._get(lease_id)

    async def require_owned(self, lease_id: LeaseId, only_owner: str | None) -> None:
        """Raise ``NotYourLease`` unless a lease is of ``only_owner``: the owner of a row never changes."""
        if only_owner is not None and await self._store.get_owner(str(lease_id)) != only_owner:
            raise NotYourLease(f"lease {lease_id} is not yours, or not known", subject=str(lease_id))

    async def _get(self, lease_id: LeaseId, *, salvage: bool = False) -> Lease:
        lease = await self._store.get(str(lease_id), salvage=salvage)
        if lease is None:
            raise NotFound("lease", str(lease_id))
        return lease

    async def require_mount(self, ids: IdRange, only_owner: str | None = None) -> None:
        """Raise ``NotFound`` if there is neither a mount of that name nor leases of it.

        Callers that see only their own leases do not learn which mounts there are.
        """
        mount = ids.low.partition("/")[0]
        if only_owner is not None or await self._store.get_mount(mount) is not None:
            return
        if not await self._store.page(IdRange.of_mount(mount), None, "", 1):
            raise NotFound("mount", mount)

    async def page(
        self,
        ids: IdRange,
        state: State | None,
        after: str,
        limit: int,
        *,
        owner: str = "",
        only_owner: str | None = None,
    ) -> list[Lease]:
        """Return at most ``limit`` leases by id, those greater than ``after``; with an ``owner`` its own.

        The caller sees only leases of ``only_owner`` (None: of every owner).
        """
        if only_owner is not None and owner not in ("", only_owner):
            return []
        return await self._store.page(ids, state, after, limit, owner or only_owner)

    async def count(
        self, ids: IdRange, state: State | None, *, owner: str = "", only_owner: str | None = None
    ) -> list[LeaseCount]:
        """Count leases by mount, role and state; owners as in ``page``."""
        if only_owner is not None and owner not in ("", only_owner):
            return []
        return await self._store.count(ids, state, owner or only_owner)

    async def renew(
        self,
        lease_id: LeaseId,
        increment: timedelta | None,
        by: str,
        only_owner: str | None = None,
        limits: IssueLimits = NO_LIMITS,
    ) -> Renewal:
        """Renew a lease for ``increment`` from now (None: its own ttl), within its limits and ``limits``.

        Raises:
            NotYourLease: The lease is not of ``only_owner``, or unknown.
            NotFound: No such lease, or it has ended.
            NotRenewable, LeaseExpired, LeaseRevoking, LeaseAbandoned: Its state does not allow it.
        """
        await self.require_owned(lease_id, only_owner)
        todays_max = await self._todays_max(lease_id)
        granted: ttl.RenewedTtl | None = None

        def renew(lease: Lease, now: int) -> Lease:
            nonlocal granted
            refusal = _refusal(lease, now)
            if refusal is not None:
                raise refusal
            most = lease.ttl if todays_max is None else todays_max
            granted = ttl.renewal(now, increment, _term(lease), most, limits.max_ttl)
            return steps.renew(lease, granted.expires_us, now)

        renewed = await self._store.renew(str(lease_id), renew)
        if renewed is None or granted is None:
            raise NotFound("lease", str(lease_id))
        self._watch(renewed.id, renewed.due_us)
        self._notify(Renewed(renewed.id, renewed.expires_us, by, owner=renewed.owner))
        return Renewal(renewed, granted.ttl, tuple(granted.warnings))

    async def _todays_max(self, lease_id: LeaseId) -> timedelta | None:
        """Return the longest life of a lease by its role and mount of today; None if there is no mount."""
        stored = await self._store.load_issue_context(lease_id.mount, lease_id.role)
        if stored.mount is None:
            return None
        if stored.role is None:
            return ttl.longest_user(stored.mount)
        return ttl.longest(stored.role, stored.mount)

    async def revoke(
        self, lease_id: LeaseId, *, sync: bool, by: str, only_owner: str | None = None
    ) -> Revocation:
        """Revoke a lease; with ``sync`` wait until it is gone or one attempt has failed.

        A session's lease ends without a call to AWS, so this always waits for it.

        Raises:
            NotYourLease: The lease is not of ``only_owner``, or unknown; nothing was changed.
        """
        await self.require_owned(lease_id, only_owner)
        key = str(lease_id)
        with self._queue.next_attempt(key) as attempt:
            lease = await self._store.revoke(key)
            if lease is None:
                return Revocation(Outcome.UNKNOWN)
            if lease.state is State.GONE:
                return Revocation(Outcome.ALREADY_GONE)
            self._notify(RevocationAsked(key, by))
            self._queue.push_urgent(key)
            if not sync and not lease.is_session:
                return Revocation(Outcome.ACCEPTED)
            after = await self._wait_for_attempt(lease_id, lease, attempt)
        if after.state is State.GONE and after.is_session:
            return Revocation(Outcome.FORGOTTEN, works_until_us=after.max_expires_us)
        if after.state is State.GONE:
            return Revocation(Outcome.GONE)
        return Revocation(Outcome.ACCEPTED, after.last_error)

    async def withdraw(self, lease_id: str) -> None:
        """Revoke a lease whose credential is not handed out; repeat until the store has accepted it."""
        while True:
            try:
                lease = await self._store.revoke(lease_id)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if lease is not None and lease.state is not State.GONE:
                self._notify(IssueFailed(lease_id, "its audit record was not written in time", ""))
                self._queue.push_urgent(lease_id)
            return

    async def _wait_for_attempt(
        self, lease_id: LeaseId, lease: Lease, attempt: asyncio.Future[None]
    ) -> Lease:
        """Return the lease after the next attempt on it, by this process or another (seen in its row)."""
        while True:
            await asyncio.wait((attempt,), timeout=POLL_SECONDS)
            after = await self._get(lease_id, salvage=True)
            if attempt.done() or after.state is State.GONE or _tried(after) != _tried(lease):
                return after


def _tried(lease: Lease) -> tuple[int, int, str]:
    """Return the columns that every attempt changes unless it ends the lease."""
    return lease.attempts, lease.not_found_count, lease.last_error


def _term(lease: Lease) -> ttl.Term:
    return ttl.Term(lease.ttl, lease.issue_us, lease.expires_us, lease.max_expires_us)


def _refusal(lease: Lease, now_us: int) -> LessorError | None:
    """Return why a lease cannot be renewed, if it cannot."""
    if lease.tampered:
        return RowTampered("leases", lease.id)
    if lease.is_session and lease.state is not State.GONE:
        return NotRenewable(f"AWS has fixed the life of {lease.id}", subject=lease.id)
    match lease.state:
        case State.ACTIVE if lease.expires_us > now_us:
            return None
        case State.ACTIVE:
            return LeaseExpired(f"lease {lease.id} has expired", subject=lease.id)
        case State.INTENT:
            return NotRenewable(f"lease {lease.id} is still being issued", subject=lease.id)
        case State.REVOKING:
            return LeaseRevoking(f"lease {lease.id} is being revoked", subject=lease.id)
        case State.ABANDONED:
            return LeaseAbandoned(f"lease {lease.id} was abandoned", subject=lease.id)
        case State.GONE:
            return NotFound("lease", lease.id, ended=True, fix="issue new credentials")
