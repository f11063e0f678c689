"""Runs the jobs of a store on a connection of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeAlias

from asyncpg import Connection, Record
from asyncpg.pool import PoolConnectionProxy

from lessor_server.adapters.postgres.dialect import spread, translate
from lessor_server.adapters.postgres.texts import unescape_row
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.transaction import Params

Session: TypeAlias = "Connection[Record] | PoolConnectionProxy[Record]"
MIN_CHUNK = 16
"""The fewest rows that are read of a query whose caller may stop."""


class PostgresTransaction:
    """A transaction of a connection, or single reads without one."""

    def __init__(self, connection: Session, *, writes: bool) -> None:
        """Run statements on ``connection``; a transaction that only reads sees what is committed."""
        self.connection = connection
        self._writes = writes

    @property
    def is_durable(self) -> bool:
        """Return whether what a job reads is committed."""
        return not self._writes

    async def row(self, statement: str, params: Params) -> Row | None:
        """Run a statement; return its first row, or None."""
        asked = translate(statement)
        found = await self.connection.fetchrow(asked.text, *asked.arguments(params))
        return None if found is None else unescape_row(found)

    async def rows(self, statement: str, params: Params) -> Sequence[Row]:
        """Run a statement; return all of its rows."""
        asked = translate(statement)
        found = await self.connection.fetch(asked.text, *asked.arguments(params))
        return [unescape_row(row) for row in found]

    async def stream(self, statement: str, params: Params, chunk: int, /) -> AsyncGenerator[Row, None]:
        """Yield the rows of a query, which are read in chunks: with a limit it follows an index."""
        size, offset = max(chunk, MIN_CHUNK) + 1, 0
        while True:
            part: dict[str, Any] = {**params, "limit": size, "offset": offset}
            found = await self.rows(f"{statement} LIMIT :limit OFFSET :offset", part)
            for row in found:
                yield row
            if len(found) < size:
                return
            offset += size

    async def attempt(self, statement: str, params: Params) -> tuple[Row | None, str]:
        """Run a statement; a column has its type, so no row makes one fail."""
        return await self.row(statement, params), ""

    async def change(self, statement: str, params: Params) -> int:
        """Run a statement; return how many rows it has changed."""
        asked = translate(statement)
        done = await self.connection.execute(asked.text, *asked.arguments(params))
        return int(done.rpartition(" ")[2])

    async def rows_of_many(
        self, statement: str, columns: tuple[str, ...], many: Sequence[Params]
    ) -> Sequence[Row]:
        """Run a statement of PostgreSQL once for all of ``many``, which take the place of ``{many}``."""
        text, conversions = spread(statement, columns)
        arrays = [
            [convert(params[name]) for params in many]
            for name, convert in zip(columns, conversions, strict=True)
        ]
        return [unescape_row(row) for row in await self.connection.fetch(text, *arrays)]

    async def change_many(self, statement: str, many: Sequence[Params]) -> None:
        """Run a statement once for each of ``many``, in one round trip."""
        if many:
            asked = translate(statement)
            await self.connection.executemany(asked.text, [asked.arguments(params) for params in many])
