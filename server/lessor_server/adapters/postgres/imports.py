"""Takes the rows of another store into an empty database; a copy that was cut off goes on where it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from asyncpg import Pool, Record

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.connection import DatabaseRefused, PostgresJobs, open_pool, refusal
from lessor_server.adapters.postgres.migrate import migrate_schema, require_usable
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.postgres.texts import escape_text, unescape_row
from lessor_server.adapters.postgres.transaction import Session
from lessor_server.adapters.sql.columns import Reader, Row
from lessor_server.adapters.sql.copied_tables import COPIED_TABLES, CopiedTable
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sql.statements import DROP_META, PUT_META
from lessor_server.adapters.sql.transaction import REPEAT, Transaction
from lessor_server.engine.sealing_ports import RowSeals


class CopyRefused(DatabaseRefused):
    """The database is not one that the rows can be copied into, or has not got the same rows."""

    reason = "COPY_REFUSED"
    fix = "create an empty database, and name it in --to"


class PostgresDestination:
    """A database that rows are copied into."""

    def __init__(self, pool: Pool[Record]) -> None:
        """Write on the connections of ``pool``."""
        self._pool = pool
        self._reader = Reader()
        self._jobs = PostgresJobs(pool, self._reader, lambda _: None)

    async def begin(self, instance: str) -> bool:
        """Begin a copy of an installation, or go on with one; return False if it was finished.

        Raises:
            CopyRefused: The database has rows of its own.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(own.LOCK_CONFIGURATION)
            meta = {row["key"]: row["value"] for row in await connection.fetch("SELECT key, value FROM meta")}
            if meta.get(own.UNFINISHED) == instance:
                return True
            if own.UNFINISHED not in meta and meta.get("instance") == instance:
                return False
            for table in COPIED_TABLES:
                if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table.name})"):
                    raise CopyRefused(f"the table {table.name} of the database has rows already")
            await connection.execute(
                "INSERT INTO meta (key, value) VALUES ($1, $2)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                own.UNFINISHED,
                instance,
            )
            return True

    async def find_last(self, table: CopiedTable) -> Row | None:
        """Return the key of the last row that the table has, or None."""
        order = ", ".join(f"{name} DESC" for name in table.columns[: table.keys])
        row = await self._pool.fetchrow(f"SELECT {table.order} FROM {table.name} ORDER BY {order} LIMIT 1")
        return None if row is None else unescape_row(row)

    async def write_page(self, table: CopiedTable, rows: Sequence[Row]) -> None:
        """Add rows to a table, all or none.

        Raises:
            CopyRefused: A value is of another type than its column.
        """
        escaped = [tuple(map(escape_text, row)) for row in rows]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.copy_records_to_table(table.name, records=escaped, columns=table.columns)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise CopyRefused(
                f"a row of {table.name} after {rows[0][: table.keys]} can't be copied: {text}",
                fix="correct or remove the row in the source; lessor info names unreadable rows",
            ) from None

    async def finish(self, meta: dict[str, str], seals: RowSeals, hold: str) -> None:
        """Hold expiries, and let servers start on the database."""
        macs = RowMacs(shared=True)
        macs.unlock(seals)

        async def job(tx: Transaction) -> None:
            for key, value in meta.items():
                await tx.change(PUT_META, {"key": key, "value": value})
            await macs.put_hold(tx, hold)
            await tx.change(DROP_META, {"key": own.UNFINISHED})

        await self._jobs.write_alone(job, REPEAT)

    async def read_page(self, table: CopiedTable, after: Row | None, limit: int) -> Sequence[Row]:
        """Return the next rows of a table after the key ``after``, in the order of their keys."""
        marks = ", ".join(f"${number + 1}" for number in range(table.keys))
        where = f"WHERE ({table.order}) > ({marks})" if after is not None else ""
        query = f"SELECT {', '.join(table.columns)} FROM {table.name} {where}"
        query += f" ORDER BY {table.order} LIMIT {limit}"
        found = await self._pool.fetch(query, *map(escape_text, after or ()))
        return [unescape_row(row) for row in found]


@asynccontextmanager
async def open_destination(target: DatabaseTarget) -> AsyncIterator[PostgresDestination]:
    """Connect to a database, create its tables if it has none, and take rows while the block runs.

    Raises:
        DatabaseRefused: The database cannot be used.
    """
    try:
        async with open_pool(target) as pool:
            async with pool.acquire() as connection:
                await _prepare(connection, target)
            yield PostgresDestination(pool)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _with_option(refusal(target, error)) from None
    except DatabaseRefused as error:
        raise _with_option(error) from None


async def _prepare(connection: Session, target: DatabaseTarget) -> None:
    try:
        await migrate_schema(connection)
        await require_usable(connection)
    except DatabaseRefused as error:
        raise type(error)(f"{target}: {error.message}", fix=error.fix) from None


def _with_option(error: DatabaseRefused) -> DatabaseRefused:
    """Return an error whose fix names the option that has the URL, in place of the server's setting."""
    return type(error)(error.message, fix=error.fix.replace("store.url", "--to"))
