"""A store in memory with the rules of the real ones: each change is atomic, and durable when it returns.

Its rules are those of ``adapters/sql/statements.py``, written in Python. The conformance suite checks that
both behave alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from lessor_server.domain import lease as steps
from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.errors.base import Aborted, MountFull, NotFound, RoleFull, RootChanged
from lessor_server.domain.errors.preconditions import LeaseRevoking, MountDisabling
from lessor_server.domain.lease import Intent, Lease, LeaseStep, State, sources
from lessor_server.domain.lease_id import IdRange, is_lease_id
from lessor_server.domain.mount import MountState
from lessor_server.engine.store_types import ClaimTerms, LeaseCount
from tests.support.memory_config import At, passing
from tests.support.memory_logins import MemoryLogins
from tests.support.memory_rows import Clock, Row, us


class MemoryStore(MemoryLogins):
    """Implements ``engine.ports.Store``: leases here, configuration and upkeep in the base classes."""

    def __init__(self, clock: Clock, at: At = passing, instance: str = "0123456789abcdef") -> None:
        """Begin empty, at the wall clock's time."""
        super().__init__(clock, at, instance)
        self.rows_read = 0
        """How many rows ``list_due_within`` has returned."""

    # --- steps ---------------------------------------------------------------------------------------------

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        """Store an INTENT, claimed for ``span``."""
        await self._before("begin")
        self._require_room(intent)
        lease = steps.begin(intent, self.now(), span)
        self.rows[lease.id] = Row(lease, "issuer")
        await self._at("begin done")
        return lease

    def _require_room(self, intent: Intent) -> None:
        mount, root = self.mounts.get(intent.mount), self.roots.get(intent.mount)
        if mount is None:
            raise NotFound("mount", intent.mount)
        if mount.state is not MountState.ENABLED:
            raise MountDisabling(f"mount {intent.mount} is being disabled", subject=intent.mount)
        if intent.request and self._earlier(intent.mount, intent.role, intent.owner, intent.request.id):
            raise Aborted(f"request {intent.request.id} is being served by another process", retry_in=0.5)
        if intent.id in self.rows:
            raise Aborted(f"the lease id {intent.id} is already in use", retry_in=0.1)
        if root is None or (root.version, root.account) != (intent.root_version, intent.footprint.account):
            raise RootChanged(f"the root of {intent.mount} changed during this call", retry_in=0.1)
        self._require_room_by_rule(intent)
        live = [row.lease for row in self.rows.values() if row.live and row.lease.mount == intent.mount]
        if intent.max_leases and sum(one.role == intent.role for one in live) >= intent.max_leases:
            raise RoleFull("full", subject=f"role/{intent.mount}/{intent.role}")
        users = sum(not one.is_session for one in live)
        if intent.footprint.user_name and users >= intent.max_users:
            raise MountFull("full", subject=f"mount/{intent.mount}")

    def _require_room_by_rule(self, intent: Intent) -> None:
        now, most = self.now(), intent.rule_max_leases
        rows = self.rows.values()
        counted = sum(row.counts_by_rule(intent.owner, intent.policy_rule, now) for row in rows)
        if most is not None and counted >= most:
            raise RuleFull.of(intent.policy_rule, most)

    async def write(self, before: Lease, after: Lease) -> bool:
        """Write a step of a lease if its row is unchanged; extend its life only if that is allowed."""
        step = step_name(before, after)
        await self._before(step)
        row = self.rows.get(before.id)
        written = row is not None and self._unchanged(row, before) and self._may_become(row, after)
        if row is not None and written:
            gone_us = self.now() if after.state is State.GONE else 0
            self.rows[after.id] = Row(after, gone_us=gone_us)
        await self._at(f"{step} done")
        return written

    def _unchanged(self, row: Row, before: Lease) -> bool:
        return row.lease.generation == before.generation

    def _may_become(self, row: Row, after: Lease) -> bool:
        """Return whether a lease may be ACTIVE: it has not expired, and no open prefix covers it."""
        if after.state is not State.ACTIVE:
            return True
        live = row.lease.state is State.INTENT or row.lease.expires_us > self.now()
        return live and not self._covered(row.lease)

    async def renew(self, lease_id: str, renew: Callable[[Lease, int], Lease]) -> Lease | None:
        """Read a lease and write its renewal, again if it has changed meanwhile."""
        for _ in range(3):
            lease = await self.get(lease_id)
            if lease is None:
                return None
            renewed = renew(lease, self.now())
            if await self.write(lease, renewed):
                return renewed
        raise LeaseRevoking(f"lease {lease_id} is being revoked", subject=lease_id)

    async def revoke(self, lease_id: str) -> Lease | None:
        """Mark the lease for revocation; return the changed row."""
        await self._before("revoke")
        row = self.rows.get(lease_id)
        if row is None:
            return None
        worked_on = row.lease.state is State.REVOKING and row.claimed_by
        if row.lease.state in sources(LeaseStep.REVOKE) and not worked_on:
            self._put(row, state=State.REVOKING, due_us=self.now())
        await self._at("revoke done")
        return self.rows[lease_id].lease

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Set a lease, tombstone or not, back to REVOKING, due immediately."""
        await self._before("reopen")
        row = self.rows.get(lease_id)
        if row is not None and row.lease.state in sources(LeaseStep.REOPEN):
            latest = max(row.lease.last_create_us, last_create_us)
            self._put(row, state=State.REVOKING, due_us=self.now(), not_found_count=0, last_create_us=latest)
        await self._at("reopen done")

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        """Claim those of ``ids`` that are due and free."""
        await self._before("claim")
        at = self.now()
        found = [self.rows[lease_id] for lease_id in dict.fromkeys(ids) if lease_id in self.rows]
        claims = [self._claim(row, terms, at) for row in found if row.due(at, held=self._holds(terms))]
        await self._at("claim done")
        return claims

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim what is due, earliest first."""
        await self._before("claim_due")
        at, held = self.now(), self._holds(terms)
        due = [row for row in self.rows.values() if row.due(at, held=held)]
        if without:
            due = [row for row in due if row.lease.is_session or row.lease.footprint.account not in without]
        due.sort(key=lambda row: (row.lease.due_us, row.lease.id))
        claims = [self._claim(row, terms, at) for row in due[:limit]]
        await self._at("claim_due done")
        return claims

    def _holds(self, terms: ClaimTerms) -> bool:
        """Return whether expiries are held: by the claiming process, or in the store for all processes."""
        return terms.held or bool(self._why_held)

    def _claim(self, row: Row, terms: ClaimTerms, at: int) -> Lease:
        return self._put(row, by=terms.by, state=State.REVOKING, due_us=at + us(terms.span))

    async def void_stale_claims(self) -> int:
        """Void every claim."""
        await self._before("void_stale_claims")
        self._void_rotation_claims()
        claimed = [row for row in self.rows.values() if row.claimed_by]
        for row in claimed:
            self._put(row, state=State.REVOKING, due_us=min(row.lease.due_us, self.now()))
        return len(claimed)

    # --- reading leases ------------------------------------------------------------------------------------

    async def list_due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of the rows that fall due between now and ``span`` later."""
        now = self.now()
        await self._before("list_due_within", reads=True)
        due = [(row.lease.due_us, row.lease.id) for row in self.rows.values() if row.live]
        within = sorted(one for one in due if now < one[0] <= now + us(span))[:limit]
        self.rows_read += len(within)
        return [(lease_id, due_us) for due_us, lease_id in within]

    async def get(self, lease_id: str, *, salvage: bool = False) -> Lease | None:
        """Return one lease."""
        await self._before("get", reads=True)
        row = self.rows.get(lease_id)
        return self._shown(row.lease) if row else None

    async def is_current(self, lease: Lease) -> bool:
        """Return whether the row of a lease is unchanged."""
        await self._before("is_current", reads=True)
        row = self.rows.get(lease.id)
        return row is not None and row.lease.generation == lease.generation

    async def get_owner(self, lease_id: str) -> str | None:
        """Return the owner of a lease."""
        await self._before("get_owner", reads=True)
        row = self.rows.get(lease_id)
        return row.lease.owner if row else None

    async def get_bound_account(self, mount: str) -> str:
        """Return the account on which rows of the mount have, or may have had, users."""
        await self._before("get_bound_account", reads=True)
        leases = (row.lease for row in self.rows.values())
        bound = (one for one in leases if one.mount == mount and not one.is_session)
        return next((one.footprint.account for one in bound), "")

    async def page(
        self, ids: IdRange, state: State | None, after: str, limit: int, owner: str | None = None
    ) -> list[Lease]:
        """Return leases by id, those greater than ``after``; with an ``owner`` only its leases."""
        await self._before("page", reads=True)
        now = self.now()
        found = [self.rows[lease_id].lease for lease_id in sorted(self.rows) if lease_id > after]
        own = (one for one in found if owner in (None, one.owner))
        taken = (one for one in own if ids.covers(one.id) and state in (None, one.state_at(now)))
        return [self._shown(one) for one in list(taken)[:limit]]

    async def count(self, ids: IdRange, state: State | None, owner: str | None = None) -> list[LeaseCount]:
        """Count leases by mount, role and state as callers see it; with an ``owner`` only its leases."""
        if is_lease_id(ids.low):
            found = await self.page(ids, state, "", 1, owner)
            return [LeaseCount(one.mount, one.role, one.state_at(self.now()), 1) for one in found]
        await self._before("count", reads=True)
        now = self.now()
        leases = [row.lease for row in self.rows.values() if owner in (None, row.lease.owner)]
        counts = Counter((one.mount, one.role, one.state_at(now)) for one in leases)
        return [
            LeaseCount(mount, role, counted, n)
            for (mount, role, counted), n in sorted(
                counts.items(), key=lambda item: (*item[0][:2], item[0][2].value)
            )
            if ids.covers(f"{mount}/creds/{role}/") and state in (None, counted)
        ]

    async def list_owners(self, after: str, limit: int) -> list[tuple[str, int]]:
        """Return owners of live leases after ``after``, in order, with their numbers."""
        await self._before("list_owners", reads=True)
        counts = Counter(row.lease.owner for row in self.rows.values() if row.live)
        return [(owner, n) for owner, n in sorted(counts.items()) if owner > after][:limit]


def step_name(before: Lease, after: Lease) -> str:
    """Return the name of the step between two versions of a lease."""
    match before.state, after.state:
        case State.INTENT, State.ACTIVE:
            return "activate"
        case State.INTENT, _:
            return "abort_intent"
        case _, State.GONE:
            return "finish"
        case State.REVOKING, _:
            return "reschedule"
    if after.undelivered > before.undelivered or (
        after.undelivered and after.expires_us <= before.expires_us
    ):
        return "mark_undelivered"
    same_key = (after.access_key_id, after.undelivered) == (before.access_key_id, before.undelivered)
    return "renew" if same_key and after.expires_us != before.expires_us else "replace_key"
