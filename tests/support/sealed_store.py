"""Opens a store on SQLite with a real keyring, and edits its rows while it is closed, as a thief would."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.adapters.sqlite.store import FILE, SqliteStore, open_store
from lessor_server.domain.events import Event
from tests.support.stores import HandClock

KEY_BYTES = bytes(range(32))
WRAPPING = LocalKey(KEY_BYTES, "the key of the tests")
Values = tuple[object, ...]


@asynccontextmanager
async def open_with_keyring(
    folder: Path,
    clock: HandClock | None = None,
    notify: Callable[[Event], None] = lambda _: None,
    *,
    accept: bool = False,
) -> AsyncIterator[tuple[SqliteStore, Keyring]]:
    """Open the store of ``folder`` as a start does, with ``WRAPPING``."""
    async with open_store(folder, clock or HandClock(), notify) as store:
        keyring = Keyring(WRAPPING)
        stored = await store.list_data_keys()
        if stored:
            await keyring.load(stored)
            await store.unlock(keyring, accept=accept)
        else:
            first = await keyring.make()
            keyring.use(first.id)
            await store.begin_keyring(first, keyring)
        yield store, keyring


def edit(folder: Path, *statements: str, values: Values = ()) -> int:
    """Run statements on the closed database; return how many rows they changed."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        return sum(connection.execute(one, values).rowcount for one in statements)


def rows_of(folder: Path, query: str) -> list[Values]:
    """Return the rows of a query on the closed database."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        return connection.execute(query).fetchall()


def put_back(folder: Path, table: str, rows: list[Values]) -> None:
    """Write rows of an earlier ``rows_of`` over those of today."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        for row in rows:
            places = ", ".join("?" * len(row))
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)


def exchange(folder: Path, table: str, columns: str, first: str, second: str) -> None:
    """Let two rows of the closed database change places, but for their keys."""
    (one,) = rows_of(folder, f"SELECT {columns} FROM {table} WHERE {first}")
    (other,) = rows_of(folder, f"SELECT {columns} FROM {table} WHERE {second}")
    assert one != other
    marks = ", ".join("?" * len(one))
    for where, values in ((first, other), (second, one)):
        assert edit(folder, f"UPDATE {table} SET ({columns}) = ({marks}) WHERE {where}", values=values) == 1
