"""Shared by the parts of a store: its jobs, conversion of rows, and the service's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql.clock import ServiceTime
from lessor_server.adapters.sql.columns import Row, Table
from lessor_server.adapters.sql.row_macs import Placed, RowMacs
from lessor_server.adapters.sql.transaction import Jobs, Transaction, require_row

T = TypeVar("T")
Place = Callable[[Row], Placed]


class StorePart:
    """One part of a store."""

    def __init__(self, jobs: Jobs, clock: ServiceTime) -> None:
        """Run ``jobs``; compare with ``clock``."""
        self._jobs = jobs
        self._reader = jobs.reader
        self._macs = jobs.reader.macs or RowMacs()
        self._clock = clock

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        return self._clock.now()

    async def _find(self, table: Table[T], statement: str, params: rows.Params) -> T | None:
        """Read one row."""

        async def job(tx: Transaction) -> T | None:
            return await self._reader.one(tx, table, await tx.row(statement, params))

        return await self._jobs.read(job, single=table.place is None)

    async def _list(self, table: Table[T], statement: str, params: rows.Params) -> list[T]:
        """Return all readable rows."""

        async def job(tx: Transaction) -> list[T]:
            return await self._reader.readable(tx, table, await tx.rows(statement, params))

        return await self._jobs.read(job, single=table.place is None)

    async def _page(self, table: Table[T], statement: str, params: rows.Params, limit: int) -> list[T]:
        """Return at most ``limit`` readable rows."""

        async def job(tx: Transaction) -> list[T]:
            return await self._reader.page(tx, table, tx.stream(statement, params, limit), limit)

        return await self._jobs.read(job)

    async def _write_sealed(self, statement: str, params: rows.Params, find: str, place: Place) -> bool:
        """Run one statement, and store the MAC of the row that ``find`` returns if it was changed.

        The row has an etag that no other write has.
        """

        async def job(tx: Transaction) -> bool:
            if await tx.change(statement, params) != 1:
                return False
            await self._macs.put(tx, place(await require_row(tx, find, params)))
            return True

        async def again(tx: Transaction, written: bool) -> bool:
            return (written and params["etag"] in (await tx.row(find, params) or ())) or await job(tx)

        return await self._jobs.write_alone(job, again)

    async def _repeatable(self, statement: str, params: rows.Params) -> int:
        """Run one statement that changes nothing more when it runs twice; return how many rows it changed."""

        async def again(tx: Transaction, changed: int) -> int:
            return max(changed, await tx.change(statement, params))

        return await self._jobs.write(lambda tx: tx.change(statement, params), again)
