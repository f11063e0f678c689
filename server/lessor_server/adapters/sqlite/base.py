"""Shared by the parts of the store: jobs in batches, conversion of rows, and the service's time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite.clock import ServiceClock
from lessor_server.adapters.sqlite.columns import Row, Table
from lessor_server.adapters.sqlite.connection import Batches
from lessor_server.adapters.sqlite.row_macs import Placed, RowMacs

T = TypeVar("T")
Place = Callable[[Row], Placed]


class SqlitePart:
    """One part of the store."""

    def __init__(self, batches: Batches, clock: ServiceClock) -> None:
        """Run jobs in ``batches``; compare with ``clock``."""
        self._batches = batches
        self._reader = batches.reader
        self._macs = batches.reader.macs or RowMacs(batches.raw)
        self._clock = clock

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        return self._clock.now()

    async def _find(self, table: Table[T], statement: str, params: rows.Params) -> T | None:
        """Read one row."""
        return await self._batches.read(
            lambda connection: self._reader.one(table, connection.execute(statement, params).fetchone())
        )

    async def _list(self, table: Table[T], statement: str, params: rows.Params) -> list[T]:
        """Return all readable rows."""
        return await self._batches.read(
            lambda connection: list(self._reader.readable(table, connection.execute(statement, params)))
        )

    async def _page(self, table: Table[T], statement: str, params: rows.Params, limit: int) -> list[T]:
        """Return at most ``limit`` readable rows."""
        return await self._batches.read(
            lambda connection: self._reader.page(table, connection.execute(statement, params), limit)
        )

    async def _write_sealed(self, statement: str, params: rows.Params, find: str, place: Place) -> bool:
        """Run one statement, and store the MAC of the row that ``find`` returns if it was changed."""

        def job(connection: sqlite3.Connection) -> bool:
            if connection.execute(statement, params).rowcount != 1:
                return False
            self._macs.put(connection, place(connection.execute(find, params).fetchone()))
            return True

        return await self._batches.write(job)

    async def _write(self, statement: str, params: rows.Params) -> bool:
        """Run one statement; return whether it changed a row."""
        return await self._batches.write(
            lambda connection: connection.execute(statement, params).rowcount == 1
        )
