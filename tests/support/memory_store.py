"""A store in memory with the rules of the real ones: each change is whole, and durable when it returns.

Its rules are those of ``adapters/sqlite/statements.py``, said once more in Python; the conformance suite
holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from lessor_server.domain.errors import (
    Aborted,
    MountDisabling,
    MountFull,
    NotFound,
    RoleFull,
    StoreUnavailable,
)
from lessor_server.domain.lease import LIVE, Claim, Intent, Lease, State, Step, sources
from lessor_server.domain.mount import MountState
from lessor_server.engine.ports import LeaseCount, Range
from tests.support.memory_config import At, MemoryConfig, passing

_MICROSECOND = timedelta(microseconds=1)


def _us(span: timedelta) -> int:
    return span // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Row:
    """A lease and the two columns that never leave a store."""

    lease: Lease
    claimed_by: str
    max_ttl: timedelta

    @property
    def live(self) -> bool:
        """Tell whether a user of this row may exist on the account."""
        return self.lease.state in LIVE

    def due(self, now: int) -> bool:
        """Tell whether the row may be claimed."""
        return self.live and self.lease.due_us <= now


class MemoryStore(MemoryConfig):
    """Implements ``engine.ports.Store``; configuration is inherited, leases stand here."""

    def __init__(
        self, clock: Callable[[], int], at: At = passing, instance: str = "0123456789abcdef"
    ) -> None:
        """Tell the time by ``clock``, in microseconds since the epoch."""
        super().__init__(at, instance)
        self._clock = clock
        self.rows: dict[str, Row] = {}
        self.rows_read = 0
        """How many rows ``due_within`` has given out."""

    def now(self) -> int:
        """Return the time."""
        return self._clock()

    # --- steps ---------------------------------------------------------------------------------------------

    async def begin(self, intent: Intent, span: timedelta) -> Claim:
        """Store an INTENT, claimed for ``span``."""
        await self._before("begin")
        self._require_room(intent)
        if intent.id in self.rows:
            raise StoreUnavailable(f"the store cannot write: {intent.id} is there")
        now = self.now()
        lease = Lease(
            id=intent.id,
            mount=intent.mount,
            role=intent.role,
            credential_type=intent.credential_type,
            owner=intent.owner,
            state=State.INTENT,
            generation=1,
            footprint=intent.footprint,
            access_key_id="",
            ttl=intent.ttl,
            created_us=now,
            issue_us=0,
            last_renewal_us=0,
            expires_us=0,
            max_expires_us=0,
            due_us=now + _us(span),
            attempts=0,
            looks=0,
            last_error="",
            last_create_us=now + _us(span),
        )
        self.rows[lease.id] = Row(lease, "issuer", intent.max_ttl)
        await self._at("begin done")
        return Claim(lease)

    def _require_room(self, intent: Intent) -> None:
        mount, root = self.mounts.get(intent.mount), self.roots.get(intent.mount)
        if mount is None:
            raise NotFound("mount", intent.mount)
        if mount.state is not MountState.ENABLED:
            raise MountDisabling(f"mount {intent.mount} is being disabled", subject=intent.mount)
        if root is None or (root.version, root.account) != (intent.root_version, intent.footprint.account):
            raise Aborted(f"the root of {intent.mount} changed meanwhile", retry_in=0.1)
        live = [row.lease for row in self.rows.values() if row.live and row.lease.mount == intent.mount]
        if intent.max_leases and sum(one.role == intent.role for one in live) >= intent.max_leases:
            raise RoleFull("full", subject=f"role/{intent.mount}/{intent.role}")
        if len(live) >= intent.max_users:
            raise MountFull("full", subject=f"mount/{intent.mount}")

    async def activate(self, claim: Claim, access_key_id: str, now: int | None = None) -> Lease | None:
        """Turn the claimed INTENT into ACTIVE."""
        await self._before("activate")
        row, at = self._held(claim, Step.ACTIVATE), self._or_now(now)
        if row is None:
            return None
        expires_us = at + _us(row.lease.ttl)
        changes: dict[str, Any] = {
            "state": State.ACTIVE,
            "access_key_id": access_key_id,
            "issue_us": at,
            "due_us": expires_us,
        }
        bound = at + _us(row.max_ttl)
        lease = self._put(row, **changes, expires_us=expires_us, max_expires_us=bound)
        await self._at("activate done")
        return lease

    async def release(self, claim: Claim, error: str, last_create_us: int) -> bool:
        """Give up the claimed INTENT."""
        changes = {"state": State.REVOKING, "last_error": error, "last_create_us": last_create_us}
        return await self._step("release", Step.RELEASE, claim, due_us=self.now(), **changes)

    async def renew(self, lease: Lease, expires_us: int, now: int | None = None) -> Lease | None:
        """Move the expiry of an ACTIVE, unexpired lease of this generation."""
        await self._before("renew")
        row, at = self._held(Claim(lease), Step.RENEW), self._or_now(now)
        if row is None or row.lease.expires_us <= at:
            return None
        renewed = self._put(row, expires_us=expires_us, due_us=expires_us, last_renewal_us=at)
        await self._at("renew done")
        return renewed

    async def revoke(self, lease_id: str) -> Lease | None:
        """Put the lease up for revocation; return the row as it is afterwards."""
        await self._before("revoke")
        row = self.rows.get(lease_id)
        if row is None:
            return None
        worked_on = row.lease.state is State.REVOKING and row.claimed_by
        if row.lease.state in sources(Step.REVOKE) and not worked_on:
            self._put(row, state=State.REVOKING, due_us=self.now())
        await self._at("revoke done")
        return self.rows[lease_id].lease

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Turn a lease, tombstone or not, back to REVOKING, due at once."""
        await self._before("reopen")
        row = self.rows.get(lease_id)
        if row is not None and row.lease.state in sources(Step.REOPEN):
            latest = max(row.lease.last_create_us, last_create_us)
            self._put(row, state=State.REVOKING, due_us=self.now(), looks=0, last_create_us=latest)
        await self._at("reopen done")

    async def claim(
        self, ids: Sequence[str], by: str, span: timedelta, now: int | None = None
    ) -> list[Claim]:
        """Claim those of ``ids`` that are due and free."""
        await self._before("claim")
        at = self._or_now(now)
        found = [self.rows[lease_id] for lease_id in ids if lease_id in self.rows]
        claims = [self._claim(row, by, at + _us(span)) for row in found if row.due(at)]
        await self._at("claim done")
        return claims

    async def claim_due(
        self,
        by: str,
        span: timedelta,
        limit: int,
        without: frozenset[str] = frozenset(),
        now: int | None = None,
    ) -> list[Claim]:
        """Claim what is due, earliest first."""
        await self._before("claim_due")
        at = self._or_now(now)
        due = [
            row for row in self.rows.values() if row.due(at) and row.lease.footprint.account not in without
        ]
        due.sort(key=lambda row: (row.lease.due_us, row.lease.id))
        claims = [self._claim(row, by, at + _us(span)) for row in due[:limit]]
        await self._at("claim_due done")
        return claims

    def _claim(self, row: Row, by: str, until: int) -> Claim:
        return Claim(self._put(row, by=by, state=State.REVOKING, due_us=until))

    async def fail(self, claim: Claim, error: str, retry_in: timedelta, attempts: int, looks: int) -> bool:
        """Give the claimed lease back, due again after ``retry_in``."""
        due_us = self.now() + _us(retry_in)
        changes = {"last_error": error, "attempts": attempts, "looks": looks}
        return await self._step("fail", Step.FAIL, claim, due_us=due_us, **changes)

    async def finish(self, claim: Claim) -> bool:
        """Turn the claimed lease into its tombstone."""
        return await self._step("finish", Step.FINISH, claim, state=State.GONE, due_us=0, last_error="")

    async def take_over(self) -> int:
        """Void every claim."""
        await self._before("take_over")
        claimed = [row for row in self.rows.values() if row.claimed_by]
        for row in claimed:
            self._put(row, state=State.REVOKING, due_us=min(row.lease.due_us, self.now()))
        return len(claimed)

    # --- reading leases ------------------------------------------------------------------------------------

    async def holds(self, claim: Claim) -> bool:
        """Tell whether the claim is still good."""
        await self._before("holds", reads=True)
        return self._generation(claim) is not None

    async def due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of what falls due between now and ``span`` later."""
        now = self.now()
        await self._before("due_within", reads=True)
        due = [(row.lease.due_us, row.lease.id) for row in self.rows.values() if row.live]
        within = sorted(one for one in due if now < one[0] <= now + _us(span))[:limit]
        self.rows_read += len(within)
        return [(lease_id, due_us) for due_us, lease_id in within]

    async def get(self, lease_id: str) -> Lease | None:
        """Return one lease."""
        await self._before("get", reads=True)
        row = self.rows.get(lease_id)
        return row.lease if row else None

    async def page(self, ids: Range, state: State | None, after: str, limit: int) -> list[Lease]:
        """Return leases by id, those greater than ``after``."""
        await self._before("page", reads=True)
        now = self.now()
        found = [self.rows[lease_id].lease for lease_id in sorted(self.rows) if lease_id > after]
        taken = (one for one in found if ids.covers(one.id) and state in (None, one.state_at(now)))
        return list(taken)[:limit]

    async def count(self, ids: Range, state: State | None) -> list[LeaseCount]:
        """Count leases by mount, role and state as callers see it."""
        await self._before("count", reads=True)
        now = self.now()
        leases = [row.lease for row in self.rows.values()]
        counts = Counter((one.mount, one.role, one.state_at(now)) for one in leases)
        return [
            LeaseCount(mount, role, counted, n)
            for (mount, role, counted), n in sorted(
                counts.items(), key=lambda item: (*item[0][:2], item[0][2].value)
            )
            if ids.covers(f"{mount}/creds/{role}/") and state in (None, counted)
        ]

    async def remembers(self, mount: str) -> bool:
        """Tell whether the mount has any row."""
        await self._before("remembers", reads=True)
        return self._remembers(mount)

    # --- the shapes of a change ----------------------------------------------------------------------------

    async def _step(self, name: str, step: Step, claim: Claim, **changes: Any) -> bool:
        await self._before(name)
        row = self._held(claim, step)
        if row is not None:
            self._put(row, **changes)
        await self._at(f"{name} done")
        return row is not None

    def _or_now(self, now: int | None) -> int:
        return self.now() if now is None else now

    def _generation(self, claim: Claim) -> Row | None:
        row = self.rows.get(claim.id)
        return row if row and row.lease.generation == claim.generation else None

    def _held(self, claim: Claim, step: Step) -> Row | None:
        row = self._generation(claim)
        return row if row and row.lease.state in sources(step) else None

    def _put(self, row: Row, *, by: str = "", **changes: Any) -> Lease:
        lease = replace(row.lease, generation=row.lease.generation + 1, **changes)
        self.rows[lease.id] = replace(row, lease=lease, claimed_by=by)
        return lease

    def _remembers(self, mount: str) -> bool:
        return any(row.lease.mount == mount for row in self.rows.values())
