"""Copies a stopped SQLite store to a PostgreSQL database, page by page, and compares both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from lessor_server.adapters.postgres.imports import CopyRefused, PostgresDestination
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.copied_tables import COPIED_META, COPIED_TABLES, CopiedTable, RowDigest
from lessor_server.adapters.sqlite.source import SqliteSource
from lessor_server.engine.revocation.expiry_hold import STORE_ROLLED_BACK
from lessor_server.engine.sealing_ports import RowSeals

PAGE: Final = 2_000
ReadPage = Callable[[CopiedTable, Row | None, int], Awaitable[Sequence[Row]]]
ShowProgress = Callable[[str, int], None]
"""Takes the name of a table, and how many of its rows were copied or compared."""


async def copy_store(
    source: SqliteSource, destination: PostgresDestination, seals: RowSeals, show: ShowProgress
) -> bool:
    """Copy all rows, and hold the expiries of the copy; return False if an earlier run has finished it.

    A copy that was cut off continues where it ended.

    Raises:
        CopyRefused: The destination has rows of its own, a row can't be copied, or rows are missing.
    """
    instance = await source.read_meta("instance")
    if not instance:
        raise CopyRefused("the source has no installation id", fix="start its server once, and stop it")
    if not await destination.begin(instance):
        return False
    for table in COPIED_TABLES:
        after, copied = await destination.find_last(table), 0
        while rows := await source.read_page(table, after, PAGE):
            await destination.write_page(table, rows)
            after, copied = rows[-1][: table.keys], copied + len(rows)
            show(table.name, copied)
    await compare_stores(source, destination, lambda *_: None)
    found = {key: await source.read_meta(key) for key in COPIED_META}
    meta = {key: value for key, value in found.items() if value is not None}
    await destination.finish(meta, seals, STORE_ROLLED_BACK)
    return True


async def compare_stores(
    source: SqliteSource, destination: PostgresDestination, show: ShowProgress
) -> dict[str, RowDigest]:
    """Compare the number and the checksum of the rows of each table; return those of the source.

    Raises:
        CopyRefused: They differ.
    """
    digests = {}
    for table in COPIED_TABLES:
        ours = await _digest(source.read_page, table)
        theirs = await _digest(destination.read_page, table)
        if (ours.count, ours.checksum) != (theirs.count, theirs.checksum):
            raise CopyRefused(
                f"{table.name} has {ours.count} rows of checksum {ours.checksum[:16]} in the source, and"
                f" {theirs.count} of {theirs.checksum[:16]} in the copy",
                fix="copy again to an empty database; neither may be in use meanwhile",
            )
        digests[table.name] = ours
        show(table.name, ours.count)
    return digests


async def _digest(read: ReadPage, table: CopiedTable) -> RowDigest:
    digest = RowDigest()
    async for rows in _pages(read, table):
        digest.add(row for row in rows if not _is_of_hold(table, row))
    return digest


async def _pages(read: ReadPage, table: CopiedTable) -> AsyncIterator[Sequence[Row]]:
    after: Row | None = None
    while rows := await read(table, after, PAGE):
        yield rows
        after = rows[-1][: table.keys]


def _is_of_hold(table: CopiedTable, row: Row) -> bool:
    """Return whether a row is a MAC of the installation, which the hold of the copy changes."""
    return table.name == "row_macs" and row[0] == ""
