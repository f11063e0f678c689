"""Leases on PostgreSQL, where what differs from SQLite is that other processes write at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.batches import NaturalBatches
from lessor_server.adapters.postgres.transaction import PostgresTransaction
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.clock import ServiceTime
from lessor_server.adapters.sql.columns import Row, numbered
from lessor_server.adapters.sql.leases import StoredLeases, explain_refusal
from lessor_server.adapters.sql.transaction import Again, Job, Jobs, Transaction
from lessor_server.domain.errors.base import Aborted, LessorError
from lessor_server.domain.errors.preconditions import LeaseRevoking
from lessor_server.domain.lease import Intent, Lease, State
from lessor_server.engine.store_types import ClaimTerms

RENEW_TRIES: Final = 3


class PostgresLeases(StoredLeases):
    """The rows of leases; claims are short statements that skip what another process is claiming.

    Intents and steps are stored in natural batches: many wait for one commit.
    """

    def __init__(self, jobs: Jobs, clock: ServiceTime) -> None:
        """Run ``jobs``; compare with ``clock``."""
        super().__init__(jobs, clock)
        self.intents = NaturalBatches(self._begin_many, lambda item: item[0].id)
        self.steps = NaturalBatches(self._write_many, lambda item: item[1].id)

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        return await self.intents.put((intent, span))

    async def write(self, before: Lease, after: Lease) -> bool:
        return await self.steps.put((before, after))

    async def renew(self, lease_id: str, renew: Callable[[Lease, int], Lease]) -> Lease | None:
        """Write a renewal in a batch; if another process has changed the row meanwhile, read it again."""
        for _ in range(RENEW_TRIES):
            lease = await self.get(lease_id)
            if lease is None:
                return None
            renewed = renew(lease, self.now())
            if await self.write(lease, renewed):
                return renewed
        raise LeaseRevoking(
            f"lease {lease_id} is being revoked with others, or changed {RENEW_TRIES} times during this call",
            subject=lease_id,
        )

    async def _begin_many(self, items: Sequence[tuple[Intent, timedelta]]) -> list[Lease | LessorError]:
        async def job(tx: Transaction) -> list[Lease | LessorError]:
            assert isinstance(tx, PostgresTransaction)
            mounts = json.dumps(sorted({intent.mount for intent, _ in items}))
            await tx.rows(own.LOCK_MOUNTS, {"mounts": mounts})
            limited = [intent for intent, _ in items if intent.rule_max_leases is not None]
            if limited:  # a rule may be of several mounts
                names = sorted({f"{intent.owner} {intent.policy_rule}" for intent in limited})
                await tx.change(own.LOCK_NAMES, {"names": json.dumps(names)})
            begun = [self._begun(intent, span) for intent, span in items]
            many = [params for _, params in begun]
            stored = {row[0] for row in await tx.rows_of_many(own.BEGIN_MANY, own.BEGIN_COLUMNS, many)}
            results: list[Lease | LessorError] = []
            for (intent, _), (lease, params) in zip(items, begun, strict=True):
                if lease.id in stored or await tx.change(sql.BEGIN, params) == 1:
                    results.append(lease)
                else:
                    results.append(await explain_refusal(tx, intent, params))
            return results

        async def again(tx: Transaction, _first: list[Lease | LessorError]) -> list[Lease | LessorError]:
            results = await job(tx)  # it waits for the locks of the first run
            for number, (intent, _) in enumerate(items):
                if isinstance(results[number], Aborted):
                    row = await tx.row(sql.GET_LEASE, {"id": intent.id})
                    found = self._reader.salvage(rows.LEASES, row) if row else None
                    if found and found.footprint == intent.footprint and found.state is State.INTENT:
                        results[number] = found
            return results

        return await self._jobs.write(job, again)

    async def _write_many(self, items: Sequence[tuple[Lease, Lease]]) -> list[bool | LessorError]:
        async def job(tx: Transaction) -> list[bool | LessorError]:
            assert isinstance(tx, PostgresTransaction)
            now: rows.Params = {"now": self.now()}
            many = [self._changed(before, after) | now for before, after in items]
            written = {row[0] for row in await tx.rows_of_many(own.WRITE_MANY, own.WRITE_COLUMNS, many)}
            return [after.id in written for _, after in items]

        async def again(tx: Transaction, _first: list[bool | LessorError]) -> list[bool | LessorError]:
            written = await job(tx)
            missing = [after.id for (_, after), was in zip(items, written, strict=True) if not was]
            found = await tx.rows(own.GET_MANY, {"ids": json.dumps(missing)})
            leases = {lease.id: lease for lease in self._reader.salvaged(rows.LEASES, found)}
            return [
                was or leases.get(after.id) == replace(after, tampered=False)
                for (_, after), was in zip(items, written, strict=True)
            ]

        return await self._jobs.write(job, again)

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        params = self._claiming(terms) | {"ids": json.dumps(list(ids))}

        async def job(tx: Transaction) -> list[Lease]:
            found = {str(row[0]): row for row in await tx.rows(own.CLAIM_THESE, params)}
            claimed = [found[lease_id] for lease_id in dict.fromkeys(ids) if lease_id in found]
            return self._reader.salvaged(rows.LEASES, await self._recount(tx, claimed))

        return await self._jobs.write(job, self._unless_claimed(job, params))

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim due rows, earliest first, until ``limit`` of them can be read; the others stay claimed."""
        params = self._claiming(terms) | {"without": json.dumps(sorted(without))}

        async def job(tx: Transaction) -> list[Lease]:
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

        return await self._jobs.write(job, self._unless_claimed(job, params))

    def _unless_claimed(self, job: Job[list[Lease]], params: rows.Params) -> Again[list[Lease]]:
        """Return what repeats a claim unless the leases that it has returned are claimed as it did it."""

        async def again(tx: Transaction, claims: list[Lease]) -> list[Lease]:
            ids = {"ids": json.dumps([lease.id for lease in claims])}
            found = {str(row[0]) for row in await tx.rows(own.ARE_CLAIMED, params | ids)}
            return [lease for lease in claims if lease.id in found] or await job(tx)

        return again

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
