"""Leases on PostgreSQL, where what differs from SQLite is that other processes write at the same time."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.columns import Row, numbered
from lessor_server.adapters.sql.leases import StoredLeases
from lessor_server.adapters.sql.transaction import Transaction
from lessor_server.domain.lease import Lease
from lessor_server.engine.store_types import ClaimTerms


class PostgresLeases(StoredLeases):
    """The rows of leases; claims are short statements that skip what another process is claiming."""

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        async def job(tx: Transaction) -> list[Lease]:
            params = self._claiming(terms) | {"ids": json.dumps(list(ids))}
            found = {str(row[0]): row for row in await tx.rows(own.CLAIM_THESE, params)}
            claimed = [found[lease_id] for lease_id in dict.fromkeys(ids) if lease_id in found]
            return self._reader.salvaged(rows.LEASES, await self._recount(tx, claimed))

        return await self._jobs.write(job)

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim due rows, earliest first, until ``limit`` of them can be read; the others stay claimed."""

        async def job(tx: Transaction) -> list[Lease]:
            params = self._claiming(terms) | {"without": json.dumps(sorted(without))}
            claims: list[Lease] = []
            while (room := limit - len(claims)) > 0:
                found = sorted(
                    await tx.rows(own.CLAIM_DUE, params | {"limit": room}), key=lambda row: (row[0], row[1])
                )
                claimed = await self._recount(tx, [row[1:] for row in found])
                claims += self._reader.salvaged(rows.LEASES, claimed)
                if len(found) < room:
                    break
            return claims

        return await self._jobs.write(job)

    async def _recount(self, tx: Transaction, claimed: Sequence[Row]) -> list[Row]:
        """Return claimed rows; one with an invalid generation starts again at 1."""
        valid: list[Row] = []
        for row in claimed:
            problem = numbered(row[rows.GENERATION])
            if problem:
                self._reader.note("leases", str(row[0]), f"generation {problem}")
            fresh = await tx.row(sql.RECOUNT, {"id": row[0]}) if problem else row
            valid += [] if fresh is None else [fresh]
        return valid

    async def _lock_mount(self, tx: Transaction, mount: str) -> None:
        await tx.row(own.LOCK_MOUNT, {"mount": mount})
