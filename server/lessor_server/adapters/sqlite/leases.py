"""Leases on SQLite: each method is one job with at most one writing statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import timedelta

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.clock import ServiceClock
from lessor_server.adapters.sqlite.connection import Batches
from lessor_server.domain.errors import Aborted, LessorError, MountDisabling, MountFull, NotFound, RoleFull
from lessor_server.domain.lease import Claim, Intent, Lease, State
from lessor_server.engine.ports import LeaseCount, Range


class SqliteLeases:
    """The rows of leases."""

    def __init__(self, batches: Batches, clock: ServiceClock) -> None:
        """Run jobs in ``batches``; compare with ``clock``."""
        self._batches = batches
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
            return Claim(rows.lease(row))

        return await self._batches.write(job)

    async def activate(self, claim: Claim, access_key_id: str, now: int | None = None) -> Lease | None:
        """Turn the claimed INTENT into ACTIVE."""
        return await self._change(sql.ACTIVATE, _held(claim) | {"key_id": access_key_id}, now)

    async def release(self, claim: Claim, error: str, last_create_us: int) -> bool:
        """Give up the claimed INTENT."""
        params = _held(claim) | {"error": error, "last_create_us": last_create_us}
        return await self._step(sql.RELEASE, params)

    async def renew(self, lease: Lease, expires_us: int, now: int | None = None) -> Lease | None:
        """Move the expiry of an ACTIVE, unexpired lease of this generation."""
        return await self._change(sql.RENEW, _held(Claim(lease)) | {"expires_us": expires_us}, now)

    async def revoke(self, lease_id: str) -> Lease | None:
        """Put the lease up for revocation; return the row as it is afterwards."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            params = {"id": lease_id, "now": self.now()}
            row = connection.execute(sql.REVOKE, params).fetchone()
            if row is None:
                row = connection.execute(sql.GET_LEASE, params).fetchone()
            return rows.lease(row) if row else None

        return await self._batches.write(job)

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Turn a lease, tombstone or not, back to REVOKING, due at once."""
        await self._step(sql.REOPEN, {"id": lease_id, "last_create_us": last_create_us})

    async def claim(
        self, ids: Sequence[str], by: str, span: timedelta, now: int | None = None
    ) -> list[Claim]:
        """Claim those of ``ids`` that are due and free."""

        def job(connection: sqlite3.Connection) -> list[Claim]:
            at = self.now() if now is None else now
            params = {"by": by, "now": at, "until": at + rows.us(span)}
            found = [connection.execute(sql.CLAIM, params | {"id": lease_id}).fetchone() for lease_id in ids]
            return [Claim(rows.lease(row)) for row in found if row is not None]

        return await self._batches.write(job)

    async def claim_due(
        self,
        by: str,
        span: timedelta,
        limit: int,
        without: frozenset[str] = frozenset(),
        now: int | None = None,
    ) -> list[Claim]:
        """Claim what is due, earliest first."""

        def job(connection: sqlite3.Connection) -> list[Claim]:
            at = self.now() if now is None else now
            excluded = json.dumps(sorted(without))
            until = at + rows.us(span)
            params = {"by": by, "now": at, "until": until, "limit": limit, "without": excluded}
            return [Claim(rows.lease(row)) for row in connection.execute(sql.CLAIM_DUE, params).fetchall()]

        return await self._batches.write(job)

    async def fail(self, claim: Claim, error: str, retry_in: timedelta, attempts: int, looks: int) -> bool:
        """Give the claimed lease back, due again after ``retry_in``."""
        due_us = self.now() + rows.us(retry_in)
        params = _held(claim) | {"error": error, "due_us": due_us, "attempts": attempts, "looks": looks}
        return await self._step(sql.FAIL, params)

    async def finish(self, claim: Claim) -> bool:
        """Turn the claimed lease into its tombstone."""
        return await self._step(sql.FINISH, _held(claim))

    async def take_over(self) -> int:
        """Void every claim: the lock on the data directory proves that no other process lives."""
        return await self._batches.write(
            lambda connection: connection.execute(sql.TAKE_OVER, {"now": self.now()}).rowcount
        )

    # --- reading ----------------------------------------------------------------------------------------

    async def holds(self, claim: Claim) -> bool:
        """Tell whether the claim is still good."""
        params = _held(claim)
        return await self._batches.read(
            lambda connection: connection.execute(sql.HOLDS, params).fetchone() is not None
        )

    async def due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of what falls due between now and ``span`` later."""
        now = self.now()
        params = {"now": now, "until": now + rows.us(span), "limit": limit}
        return await self._batches.read(
            lambda connection: connection.execute(sql.DUE_WITHIN, params).fetchall()
        )

    async def get(self, lease_id: str) -> Lease | None:
        """Return one lease."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            row = connection.execute(sql.GET_LEASE, {"id": lease_id}).fetchone()
            return rows.lease(row) if row else None

        return await self._batches.read(job)

    async def page(self, ids: Range, state: State | None, after: str, limit: int) -> list[Lease]:
        """Return leases by id, those greater than ``after``."""
        params: rows.Params = {
            "low": ids.low,
            "high": ids.high,
            "after": after,
            "state": state.value if state else "",
            "now": self.now(),
            "limit": limit,
        }

        def job(connection: sqlite3.Connection) -> list[Lease]:
            return [rows.lease(row) for row in connection.execute(sql.LIST_LEASES, params).fetchall()]

        return await self._batches.read(job)

    async def count(self, ids: Range, state: State | None) -> list[LeaseCount]:
        """Count leases by mount, role and state as callers see it."""
        now = self.now()

        def job(connection: sqlite3.Connection) -> dict[tuple[str, str, State], int]:
            counts = {
                (mount, role, State(stored)): n
                for mount, role, stored, n in connection.execute(sql.COUNT_LEASES).fetchall()
            }
            for mount, role, n in connection.execute(sql.COUNT_OVERDUE, {"now": now}).fetchall():
                counts[mount, role, State.ACTIVE] -= n
                revoking = (mount, role, State.REVOKING)
                counts[revoking] = counts.get(revoking, 0) + n
            return counts

        counts = await self._batches.read(job)
        return [
            LeaseCount(mount, role, counted, n)
            for (mount, role, counted), n in sorted(
                counts.items(), key=lambda item: (*item[0][:2], item[0][2].value)
            )
            if n and ids.covers(f"{mount}/creds/{role}/") and state in (None, counted)
        ]

    async def remembers(self, mount: str) -> bool:
        """Tell whether the mount has any row."""
        return await self._batches.read(
            lambda connection: connection.execute(sql.REMEMBERS, {"mount": mount}).fetchone() is not None
        )

    # --- the two shapes of a step ---------------------------------------------------------------------------

    async def _step(self, statement: str, params: rows.Params) -> bool:
        """Run one conditional change; tell whether its condition held."""

        def job(connection: sqlite3.Connection) -> bool:
            return connection.execute(statement, params | {"now": self.now()}).rowcount == 1

        return await self._batches.write(job)

    async def _change(self, statement: str, params: rows.Params, now: int | None) -> Lease | None:
        """Run one conditional change and return the row after it, or None where its condition failed."""

        def job(connection: sqlite3.Connection) -> Lease | None:
            at = self.now() if now is None else now
            row = connection.execute(statement, params | {"now": at}).fetchone()
            return rows.lease(row) if row else None

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
    if connection.execute(sql.ROOT_IS, params).fetchone() is None:
        return Aborted(f"the root of {intent.mount} changed meanwhile", retry_in=0.1)
    live = connection.execute(sql.ROLE_LIVE, params).fetchone()[0]
    if intent.max_leases and live >= intent.max_leases:
        return RoleFull(
            f"role {intent.role} has its max_leases, {intent.max_leases}",
            subject=f"role/{intent.mount}/{intent.role}",
        )
    return MountFull(
        f"mount {intent.mount} has its max_users, {intent.max_users}", subject=f"mount/{intent.mount}"
    )
