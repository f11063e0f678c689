"""Leases on SQLite: each method is one job with at most one writing statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import timedelta

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.clock import ServiceClock
from lessor_server.adapters.sqlite.columns import MAX_US, Row, numbered
from lessor_server.adapters.sqlite.connection import Batches, is_of_the_disk
from lessor_server.domain import backoff, names
from lessor_server.domain.errors.base import Aborted, LessorError, MountFull, NotFound, RoleFull, RootChanged
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.lease import UNDELIVERED_TTL, Claim, Intent, Lease, State
from lessor_server.engine.store_types import ClaimTerms, LeaseCount, Range


class SqliteLeases:
    """The rows of leases."""

    def __init__(self, batches: Batches, clock: ServiceClock) -> None:
        """Run jobs in ``batches``; compare with ``clock``."""
        self._batches = batches
        self._reader = batches.reader
        self._clock = clock

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        return self._clock.now()

    # --- steps ------------------------------------------------------------------------------------------

    async def begin(self, intent: Intent, span: timedelta) -> Claim:
        """Store an INTENT, claimed for ``span``."""

        def job(connection: sqlite3.Connection) -> Claim:
            now = self.now()
            params = rows.intent(intent) | {"by": "issuer", "now": now, "due_us": now + rows.us(span)}
            row = connection.execute(sql.BEGIN, params).fetchone()
            if row is None:
                raise _why_not(connection, intent, params)
            return Claim(self._reader.read(rows.LEASES, row))

        return await self._batches.write(job)

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
        params: rows.Params = {
            "key_id": access_key_id,
            "ends_us": ends_us,
            "untaken": undelivered,
            "untaken_us": rows.us(UNDELIVERED_TTL),
        }
        return await self._change(sql.ACTIVATE, _held(claim) | params, now)

    async def replace_key(self, lease: Lease, access_key_id: str, now: int | None = None) -> Lease | None:
        """Put another key on an ACTIVE lease and hand it out."""
        return await self._change(sql.REKEY, _held(Claim(lease)) | {"key_id": access_key_id}, now)

    async def mark_undelivered(self, lease: Lease) -> Lease | None:
        """Let an ACTIVE lease that nobody was given expire in 60 s."""
        return await self._change(
            sql.UNTAKE, _held(Claim(lease)) | {"untaken_us": rows.us(UNDELIVERED_TTL)}, None
        )

    async def abort_intent(self, claim: Claim, error: str, last_create_us: int) -> bool:
        """Give up the claimed INTENT."""
        params = _held(claim) | {"error": error, "last_create_us": last_create_us}
        return await self._step(sql.RELEASE, params)

    async def renew(
        self, lease: Lease, expires_us: int, now: int | None = None, *, retired: bool = False
    ) -> Lease | None:
        """Move the expiry of an ACTIVE, unexpired lease of this generation."""
        params = _held(Claim(lease)) | {"expires_us": expires_us, "retired": retired}
        return await self._change(sql.RENEW, params, now)

    async def revoke(self, lease_id: str) -> Lease | None:
        """Put the lease up for revocation; return the row as it is afterwards."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            params = {"id": lease_id, "now": self.now()}
            row = connection.execute(sql.REVOKE, params).fetchone()
            if row is None:
                row = connection.execute(sql.GET_LEASE, params).fetchone()
            return self._reader.salvage(rows.LEASES, row) if row else None

        return await self._batches.write(job)

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Turn a lease, tombstone or not, back to REVOKING, due immediately."""
        await self._step(sql.REOPEN, {"id": lease_id, "last_create_us": last_create_us})

    async def claim(self, ids: Sequence[str], terms: ClaimTerms, now: int | None = None) -> list[Claim]:
        """Claim those of ``ids`` that are due and free."""

        def job(connection: sqlite3.Connection) -> list[Claim]:
            return self._claimed(connection, ids, self._claiming(terms, now))

        return await self._batches.write(job)

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset(), now: int | None = None
    ) -> list[Claim]:
        """Claim what is due, earliest first, until ``limit`` rows that can be worked on are found.

        The others stay claimed, so they come no earlier than that ends, and hold nobody up.
        """

        def job(connection: sqlite3.Connection) -> list[Claim]:
            params = self._claiming(terms, now)
            claims: list[Claim] = []
            ids: list[str | bytes] = []
            while (room := limit - len(claims)) > 0:
                asked = params | {"limit": room, "without": json.dumps(sorted(without))}
                before, ids = ids, [row[0] for row in connection.execute(sql.DUE, asked).fetchall()]
                claims += self._claimed(connection, ids, params)
                if len(ids) < room or ids == before:
                    break
            return claims

        return await self._batches.write(job)

    def _claimed(
        self, connection: sqlite3.Connection, ids: Sequence[str | bytes], params: rows.Params
    ) -> list[Claim]:
        """Claim those of ``ids`` that are due and free, each by one conditional statement, in this order."""
        found = [self._claimed_row(connection, lease_id, params) for lease_id in ids]
        leases = self._reader.readable(rows.LEASES, (row for row in found if row is not None), salvage=True)
        return [Claim(lease) for lease in leases]

    def _claimed_row(
        self, connection: sqlite3.Connection, lease_id: str | bytes, params: rows.Params
    ) -> Row | None:
        """Claim a row and return it; one that cannot be claimed comes no earlier than its claim would end."""
        problem = "id is not a string"
        if isinstance(lease_id, str):
            try:
                row: Row | None = connection.execute(sql.CLAIM, params | {"id": lease_id}).fetchone()
            except sqlite3.Error as error:
                if is_of_the_disk(error):
                    raise
                problem = str(error)
            else:
                if row is not None and (problem := numbered(row[rows.GENERATION])):
                    self._reader.note("leases", lease_id, f"generation {problem}")
                    row = connection.execute(sql.RECOUNT, {"id": lease_id}).fetchone()
                return row
        raw = lease_id.encode() if isinstance(lease_id, str) else lease_id
        connection.execute(sql.POSTPONE_UNREADABLE, params | {"id": raw})
        self._reader.note("leases", str(lease_id), problem)
        return None

    def _claiming(self, terms: ClaimTerms, now: int | None) -> rows.Params:
        at = self.now() if now is None else now
        return {"by": terms.by, "held": terms.held, "now": at, "until": at + rows.us(terms.span)}

    async def reschedule(
        self, claim: Claim, error: str, retry_in: timedelta, attempts: int, looks: int
    ) -> bool:
        """Give the claimed lease back, due again after ``retry_in``."""
        wait_us = rows.us(retry_in)
        params = _held(claim) | {"error": error, "wait_us": wait_us, "attempts": attempts, "looks": looks}
        return await self._step(sql.FAIL, params)

    async def finish(self, claim: Claim) -> bool:
        """Turn the claimed lease into its tombstone."""
        return await self._step(sql.FINISH, _held(claim))

    async def void_stale_claims(self) -> int:
        """Void every claim: the lock on the data directory guarantees that no other process runs.

        Rows with an invalid due time are due when they expire, or now.
        """

        def job(connection: sqlite3.Connection) -> int:
            connection.execute(sql.RESTORE_DUE, {"now": self.now(), "max_us": MAX_US})
            return connection.execute(sql.TAKE_OVER, {"now": self.now()}).rowcount

        return await self._batches.write(job)

    # --- reading ----------------------------------------------------------------------------------------

    async def claim_is_valid(self, claim: Claim) -> bool:
        """Return whether the claim is still valid."""
        params = _held(claim)
        return await self._batches.read(
            lambda connection: connection.execute(sql.HOLDS, params).fetchone() is not None
        )

    async def due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of what falls due between now and ``span`` later."""
        now = self.now()
        params = {"now": now, "until": now + rows.us(span), "limit": limit}
        return await self._batches.read(
            lambda connection: [
                (lease_id, due_us)
                for lease_id, due_us in connection.execute(sql.DUE_WITHIN, params)
                if isinstance(lease_id, str) and type(due_us) is int
            ]
        )

    async def get(self, lease_id: str) -> Lease | None:
        """Return one lease."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            row = connection.execute(sql.GET_LEASE, {"id": lease_id}).fetchone()
            return self._reader.one(rows.LEASES, row)

        return await self._batches.read(job)

    async def bound_account(self, mount: str) -> str:
        """Return the account on which rows of the mount have, or may have had, users."""
        params = {"mount": mount, "low": f"{mount}/", "high": f"{mount}0"}

        def job(connection: sqlite3.Connection) -> str:
            row = connection.execute(sql.BOUND_ACCOUNT, params).fetchone()
            return row[0] if row else ""

        return await self._batches.read(job)

    async def page(self, ids: Range, state: State | None, after: str, limit: int) -> list[Lease]:
        """Return leases by id, those greater than ``after``."""
        params: rows.Params = {
            "low": ids.low,
            "high": ids.high,
            "after": after,
            "state": state.value if state else "",
            "now": self.now(),
        }

        def job(connection: sqlite3.Connection) -> list[Lease]:
            return self._reader.page(rows.LEASES, connection.execute(sql.LIST_LEASES, params), limit)

        return await self._batches.read(job)

    async def count(self, ids: Range, state: State | None) -> list[LeaseCount]:
        """Count leases by mount, role and state as callers see it."""
        if names.is_lease_id(ids.low):
            found = await self.page(ids, state, "", 1)
            return [LeaseCount(one.mount, one.role, one.state_at(self.now()), 1) for one in found]
        now = self.now()

        def job(connection: sqlite3.Connection) -> dict[tuple[str, str, State], int]:
            found = self._reader.readable(rows.COUNTS, connection.execute(sql.COUNT_LEASES))
            counts = {(one.mount, one.role, one.state): one.count for one in found}
            for mount, role, n in connection.execute(sql.COUNT_OVERDUE, {"now": now}).fetchall():
                if (mount, role, State.ACTIVE) not in counts:
                    continue  # its counts cannot be read
                counts[mount, role, State.ACTIVE] -= n
                revoking = (mount, role, State.REVOKING)
                counts[revoking] = counts.get(revoking, 0) + n
            return counts

        counts = await self._batches.read(job)
        return [
            LeaseCount(mount, role, counted, min(n, backoff.MAX_COUNT))
            for (mount, role, counted), n in sorted(
                counts.items(), key=lambda item: (*item[0][:2], item[0][2].value)
            )
            if n > 0 and ids.covers(f"{mount}/creds/{role}/") and state in (None, counted)
        ]

    # --- the two shapes of a step ---------------------------------------------------------------------------

    async def _step(self, statement: str, params: rows.Params) -> bool:
        """Run one conditional change; return whether its condition held."""

        def job(connection: sqlite3.Connection) -> bool:
            return connection.execute(statement, params | {"now": self.now()}).rowcount == 1

        return await self._batches.write(job)

    async def _change(self, statement: str, params: rows.Params, now: int | None) -> Lease | None:
        """Run one conditional change and return the row after it, or None where its condition failed."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            at = self.now() if now is None else now
            row = connection.execute(statement, params | {"now": at}).fetchone()
            return self._reader.one(rows.LEASES, row)

        return await self._batches.write(job)


def _held(claim: Claim) -> rows.Params:
    return {"id": claim.id, "generation": claim.generation}


def _why_not(connection: sqlite3.Connection, intent: Intent, params: rows.Params) -> LessorError:
    """Return why an intent was not stored, read in the transaction that refused it."""
    state = connection.execute(sql.MOUNT_STATE, params).fetchone()
    if state is None:
        return NotFound("mount", intent.mount)
    if state[0] != "enabled":
        return MountDisabling(f"mount {intent.mount} is being disabled", subject=intent.mount)
    if intent.request and connection.execute(sql.BY_REQUEST, params).fetchone():
        return Aborted(f"request {intent.request.id} is being served by another process", retry_in=0.5)
    if connection.execute(sql.TAKEN, params).fetchone():
        return Aborted(
            f"the lease id {intent.id} is already in use; the next attempt uses another", retry_in=0.1
        )
    if connection.execute(sql.ROOT_IS, params).fetchone() is None:
        return RootChanged(f"the root of {intent.mount} changed during this call", retry_in=0.1)
    live = connection.execute(sql.ROLE_LIVE, params).fetchone()[0]
    if intent.max_leases and live >= intent.max_leases:
        return RoleFull(
            f"role {intent.role} has its max_leases, {intent.max_leases}",
            subject=f"role/{intent.mount}/{intent.role}",
        )
    revoking = connection.execute(sql.MOUNT_REVOKING, params).fetchone()[0]
    return MountFull(
        f"mount {intent.mount} has its max_users, {intent.max_users}; {revoking} of them are being revoked",
        subject=f"mount/{intent.mount}",
    )
