"""Inspects a SQLite store from outside: its files, its own connection, and the results of its jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from lessor_server.adapters.sqlite.store import FILE, SqliteStore
from tests.support.stores import Bench

T = TypeVar("T")


def on_disk(folder: Path) -> dict[str, str]:
    """Read ids and states as another process would find them after a crash: from a copy of the files."""
    copy = folder.parent / f"{folder.name}-copy"
    copy.mkdir(exist_ok=True)
    for file in folder.glob(f"{FILE}*"):
        (copy / file.name).write_bytes(file.read_bytes())
    connection = sqlite3.connect(copy / FILE)
    try:
        return dict(connection.execute("SELECT id, state FROM leases").fetchall())
    finally:
        connection.close()


async def on_connection(b: Bench, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function on the store's own connection, between its batches."""
    assert isinstance(b.store, SqliteStore)
    return await b.store._batches.read(work)


async def pragma(b: Bench, text: str) -> int:
    """Run a PRAGMA on the store's own connection and return its value."""
    value: int = await on_connection(b, lambda connection: connection.execute(text).fetchone()[0])
    return value


async def fate(job: Awaitable[object]) -> object:
    """Return the result of a job, or its error."""
    try:
        return await job
    except Exception as error:  # noqa: BLE001 - whichever it is, it is the answer
        return error
