"""Reads the rows of a stopped SQLite store, for a copy to another database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.copied_tables import CopiedTable
from lessor_server.adapters.sql.statements import GET_META
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sqlite.lock import directory_lock
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, migrations, read_version
from lessor_server.adapters.sqlite.store import FILE
from lessor_server.adapters.sqlite.stored_keys import read_stored_keys
from lessor_server.adapters.sqlite.transaction import text_or_bytes


class SqliteSource:
    """The rows of a database that no server has open."""

    def __init__(self, connection: sqlite3.Connection, stored: StoredKeys) -> None:
        """Read on ``connection``; ``stored`` is what the database says about its keys."""
        self._connection = connection
        self.stored = stored

    async def read_page(self, table: CopiedTable, after: Row | None, limit: int) -> Sequence[Row]:
        """Return the next rows of a table after the key ``after``, in the order of their keys."""
        marks = ", ".join("?" * table.keys)
        where = f"WHERE ({table.order}) > ({marks})" if after is not None else ""
        query = f"SELECT {', '.join(table.columns)} FROM {table.name} {where} ORDER BY {table.order} LIMIT ?"
        values = (*(after or ()), limit)
        return await asyncio.to_thread(lambda: self._connection.execute(query, values).fetchall())

    async def read_meta(self, key: str) -> str | None:
        """Return a value of ``meta``."""
        row = self._connection.execute(GET_META, {"key": key}).fetchone()
        return None if row is None else str(row[0])


@asynccontextmanager
async def open_source(folder: Path) -> AsyncIterator[SqliteSource]:
    """Lock a data directory and read its database while the block runs; nothing of it is changed.

    Raises:
        DirectoryLocked: A server has the folder. DatabaseUnusable: There is no database of this version.
    """
    file = folder / FILE
    if not file.exists():
        raise DatabaseUnusable(f"{file} does not exist", fix="name the data directory of a server in --from")
    with directory_lock(folder):
        stored = await asyncio.to_thread(read_stored_keys, file)
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )
        try:
            connection.text_factory = text_or_bytes
            version, newest = read_version(connection), migrations()[-1][0]
            if version != newest:
                raise DatabaseUnusable(
                    f"{file} has schema {version}, not {newest}", fix="start this version's server on it once"
                )
            yield SqliteSource(connection, stored)
        finally:
            connection.close()
