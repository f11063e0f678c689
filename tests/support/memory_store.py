"""A store in memory with the rules of the real ones: each change is whole, and durable when it returns.

Its rules are those of ``adapters/sqlite/statements.py``, said once more in Python; the conformance suite
holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lessor_server.domain import names
from lessor_server.domain.errors.base import Aborted, MountFull, NotFound, RoleFull, RootChanged
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.lease import UNDELIVERED_TTL, Claim, Intent, Lease, State, Step, sources
from lessor_server.domain.mount import MountState
from lessor_server.engine.store_types import ClaimTerms, LeaseCount, Range, RequestKey
from tests.support.memory_config import At, passing
from tests.support.memory_rows import Clock, Row, us
from tests.support.memory_upkeep import MemoryUpkeep

SECOND_US = 1_000_000


class MemoryStore(MemoryUpkeep):
    """Implements ``engine.ports.Store``; configuration and upkeep are inherited, leases stand here."""

    def __init__(self, clock: Clock, at: At = passing, instance: str = "0123456789abcdef") -> None:
        """Begin empty, at the wall clock's time."""
        super().__init__(clock, at, instance)
        self.rows_read = 0
        """How many rows ``due_within`` has given out."""

    # --- steps ---------------------------------------------------------------------------------------------

    async def begin(self, intent: Intent, span: timedelta) -> Claim:
        """Store an INTENT, claimed for ``span``."""
        await self._before("begin")
        self._require_room(intent)
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
            due_us=now + us(span),
            attempts=0,
            looks=0,
            last_error="",
            last_create_us=now + us(span),
            request=intent.request,
            undelivered=False,
            reason=intent.reason,
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
        if intent.request and self._earlier(
            intent.mount, intent.role, RequestKey(intent.owner, intent.request.id)
        ):
            raise Aborted(f"request {intent.request.id} is being served by another process", retry_in=0.5)
        if intent.id in self.rows:
            raise Aborted(f"the lease id {intent.id} is already in use", retry_in=0.1)
        if root is None or (root.version, root.account) != (intent.root_version, intent.footprint.account):
            raise RootChanged(f"the root of {intent.mount} changed during this call", retry_in=0.1)
        live = [row.lease for row in self.rows.values() if row.live and row.lease.mount == intent.mount]
        if intent.max_leases and sum(one.role == intent.role for one in live) >= intent.max_leases:
            raise RoleFull("full", subject=f"role/{intent.mount}/{intent.role}")
        users = sum(not one.is_session for one in live)
        if intent.footprint.user_name and users >= intent.max_users:
            raise MountFull("full", subject=f"mount/{intent.mount}")

    async def activate(
        self,
        claim: Claim,
        access_key_id: str,
        *,
        ends_us: int = 0,
        undelivered: bool = False,
        now: int | None = None,
    ) -> Lease | None:
        """Turn the claimed INTENT into ACTIVE."""
        await self._before("activate")
        row, at = self._held(claim, Step.ACTIVATE), self._or_now(now)
        if row is None or self._covered(row.lease):
            return None
        end_us = max(ends_us, at + SECOND_US) if ends_us else at + us(row.lease.ttl)
        left = timedelta(seconds=max(-((at - ends_us) // SECOND_US), 1))
        expires_us = min(end_us, at + us(UNDELIVERED_TTL)) if undelivered else end_us
        changes: dict[str, Any] = {
            "state": State.ACTIVE,
            "access_key_id": access_key_id,
            "issue_us": at,
            "ttl": left if ends_us else row.lease.ttl,
            "max_expires_us": end_us if ends_us else at + us(row.max_ttl),
            "undelivered": undelivered,
        }
        lease = self._put(row, **changes, expires_us=expires_us, due_us=expires_us)
        await self._at("activate done")
        return lease

    async def replace_key(self, lease: Lease, access_key_id: str, now: int | None = None) -> Lease | None:
        """Put another key on an ACTIVE lease and hand it out."""
        await self._before("replace_key")
        row = self._living(lease, Step.REKEY, self._or_now(now))
        if row is None:
            return None
        there = row.lease
        full_us = there.max_expires_us if there.is_session else there.issue_us + us(there.ttl)
        expires_us = full_us if there.undelivered else there.expires_us
        changes: dict[str, Any] = {"access_key_id": access_key_id, "undelivered": False}
        rekeyed = self._put(row, **changes, expires_us=expires_us, due_us=expires_us)
        await self._at("rekey done")
        return rekeyed

    async def mark_undelivered(self, lease: Lease) -> Lease | None:
        """Let an ACTIVE lease that nobody was given expire in 60 s."""
        await self._before("mark_undelivered")
        row = self._generation(Claim(lease))
        if row is None or row.lease.state is not State.ACTIVE:
            return None
        expires_us = min(row.lease.expires_us, self.now() + us(UNDELIVERED_TTL))
        undelivered = self._put(row, expires_us=expires_us, due_us=expires_us, undelivered=True)
        await self._at("untake done")
        return undelivered

    async def abort_intent(self, claim: Claim, error: str, last_create_us: int) -> bool:
        """Give up the claimed INTENT."""
        changes = {"state": State.REVOKING, "last_error": error, "last_create_us": last_create_us}
        return await self._step("abort_intent", Step.RELEASE, claim, due_us=self.now(), **changes)

    async def renew(
        self, lease: Lease, expires_us: int, now: int | None = None, *, retired: bool = False
    ) -> Lease | None:
        """Move the expiry of an ACTIVE, unexpired lease of this generation."""
        await self._before("renew")
        at = self._or_now(now)
        row = self._living(lease, Step.RENEW, at)
        if row is None:
            return None
        told_us = lease.last_renewal_us if retired else at
        renewed = self._put(row, expires_us=expires_us, due_us=expires_us, last_renewal_us=told_us)
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
        """Turn a lease, tombstone or not, back to REVOKING, due immediately."""
        await self._before("reopen")
        row = self.rows.get(lease_id)
        if row is not None and row.lease.state in sources(Step.REOPEN):
            latest = max(row.lease.last_create_us, last_create_us)
            self._put(row, state=State.REVOKING, due_us=self.now(), looks=0, last_create_us=latest)
        await self._at("reopen done")

    async def claim(self, ids: Sequence[str], terms: ClaimTerms, now: int | None = None) -> list[Claim]:
        """Claim those of ``ids`` that are due and free."""
        await self._before("claim")
        at = self._or_now(now)
        found = [self.rows[lease_id] for lease_id in dict.fromkeys(ids) if lease_id in self.rows]
        claims = [self._claim(row, terms, at) for row in found if row.due(at, held=self._holds(terms))]
        await self._at("claim done")
        return claims

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset(), now: int | None = None
    ) -> list[Claim]:
        """Claim what is due, earliest first."""
        await self._before("claim_due")
        at = self._or_now(now)
        rows = [
            row
            for row in self.rows.values()
            if row.lease.is_session or row.lease.footprint.account not in without
        ]
        due = [row for row in rows if row.due(at, held=self._holds(terms))]
        due.sort(key=lambda row: (row.lease.due_us, row.lease.id))
        claims = [self._claim(row, terms, at) for row in due[:limit]]
        await self._at("claim_due done")
        return claims

    def _holds(self, terms: ClaimTerms) -> bool:
        """Tell whether expiries are held: by whoever claims, or in the store for everybody."""
        return terms.held or bool(self._why_held)

    def _claim(self, row: Row, terms: ClaimTerms, at: int) -> Claim:
        return Claim(self._put(row, by=terms.by, state=State.REVOKING, due_us=at + us(terms.span)))

    async def reschedule(
        self, claim: Claim, error: str, retry_in: timedelta, attempts: int, looks: int
    ) -> bool:
        """Give the claimed lease back, due again after ``retry_in``."""
        row, now = self._generation(claim), self.now()
        due_us = now + us(retry_in)
        if row and not retry_in and 0 < row.lease.expires_us <= now:
            due_us = row.lease.expires_us
        changes = {"last_error": error, "attempts": attempts, "looks": looks}
        return await self._step("reschedule", Step.FAIL, claim, due_us=due_us, **changes)

    async def finish(self, claim: Claim) -> bool:
        """Turn the claimed lease into its tombstone."""
        return await self._step(
            "finish", Step.FINISH, claim, state=State.GONE, due_us=0, last_error="", gone_us=self.now()
        )

    async def void_stale_claims(self) -> int:
        """Void every claim."""
        await self._before("void_stale_claims")
        claimed = [row for row in self.rows.values() if row.claimed_by]
        for row in claimed:
            self._put(row, state=State.REVOKING, due_us=min(row.lease.due_us, self.now()))
        return len(claimed)

    # --- reading leases ------------------------------------------------------------------------------------

    async def claim_is_valid(self, claim: Claim) -> bool:
        """Return whether the claim is still valid."""
        await self._before("claim_is_valid", reads=True)
        return self._generation(claim) is not None

    async def due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of what falls due between now and ``span`` later."""
        now = self.now()
        await self._before("due_within", reads=True)
        due = [(row.lease.due_us, row.lease.id) for row in self.rows.values() if row.live]
        within = sorted(one for one in due if now < one[0] <= now + us(span))[:limit]
        self.rows_read += len(within)
        return [(lease_id, due_us) for due_us, lease_id in within]

    async def get(self, lease_id: str) -> Lease | None:
        """Return one lease."""
        await self._before("get", reads=True)
        row = self.rows.get(lease_id)
        return row.lease if row else None

    async def bound_account(self, mount: str) -> str:
        """Return the account on which rows of the mount have, or may have had, users."""
        await self._before("bound_account", reads=True)
        leases = (row.lease for row in self.rows.values())
        bound = (one for one in leases if one.mount == mount and not one.is_session)
        return next((one.footprint.account for one in bound), "")

    async def page(self, ids: Range, state: State | None, after: str, limit: int) -> list[Lease]:
        """Return leases by id, those greater than ``after``."""
        await self._before("page", reads=True)
        now = self.now()
        found = [self.rows[lease_id].lease for lease_id in sorted(self.rows) if lease_id > after]
        taken = (one for one in found if ids.covers(one.id) and state in (None, one.state_at(now)))
        return list(taken)[:limit]

    async def count(self, ids: Range, state: State | None) -> list[LeaseCount]:
        """Count leases by mount, role and state as callers see it."""
        if names.is_lease_id(ids.low):
            found = await self.page(ids, state, "", 1)
            return [LeaseCount(one.mount, one.role, one.state_at(self.now()), 1) for one in found]
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

    # --- the shapes of a change ----------------------------------------------------------------------------

    async def _step(self, name: str, step: Step, claim: Claim, **changes: Any) -> bool:
        await self._before(name)
        row = self._held(claim, step)
        if row is not None:
            self._put(row, **changes)
        await self._at(f"{name} done")
        return row is not None

    def _living(self, lease: Lease, step: Step, at: int) -> Row | None:
        """Return the row of a lease that may live on: as it was, unexpired, in no open prefix."""
        row = self._held(Claim(lease), step)
        return row if row and row.lease.expires_us > at and not self._covered(row.lease) else None
