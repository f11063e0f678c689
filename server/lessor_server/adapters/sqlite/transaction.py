"""Runs the jobs of a store on SQLite's thread, where no step of a job ever waits."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Final, TypeVar

from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.transaction import PARAMETER, Params

T = TypeVar("T")

_OF_THE_DISK: Final = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )
)
"""Primary result codes (sqlite.org/rescode.html) of the database, with which every job would fail."""


class SqliteTransaction:
    """The transaction of a connection, or its reads outside of one; its methods return without waiting."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Run statements on ``connection``."""
        self._connection = connection

    @property
    def is_durable(self) -> bool:
        """Return whether no transaction is open: one may be rolled back."""
        return not self._connection.in_transaction

    async def row(self, statement: str, params: Params) -> Row | None:
        """Run a statement; return its first row, or None."""
        text, values = _numbered(statement)
        row: Row | None = self._connection.execute(text, values(params)).fetchone()
        return row

    async def rows(self, statement: str, params: Params) -> Sequence[Row]:
        """Run a statement; return all of its rows."""
        text, values = _numbered(statement)
        return self._connection.execute(text, values(params)).fetchall()

    async def stream(self, statement: str, params: Params, _chunk: int, /) -> AsyncGenerator[Row, None]:
        """Yield the rows of a query; SQLite reads each as it is asked for."""
        text, values = _numbered(statement)
        for row in self._connection.execute(text, values(params)):
            yield row

    async def change(self, statement: str, params: Params) -> int:
        """Run a statement; return how many rows it has changed."""
        text, values = _numbered(statement)
        return self._connection.execute(text, values(params)).rowcount

    async def change_many(self, statement: str, many: Sequence[Params]) -> None:
        """Run a statement once for each of ``many``."""
        text, values = _numbered(statement)
        self._connection.executemany(text, map(values, many))

    async def attempt(self, statement: str, params: Params) -> tuple[Row | None, str]:
        """Run a statement; return its first row, or the problem that it has with what the row holds."""
        try:
            return await self.row(statement, params), ""
        except sqlite3.Error as error:
            if is_of_the_disk(error):
                raise
            return None, str(error)


@cache
def _numbered(statement: str) -> tuple[str, Callable[[Params], tuple[object, ...]]]:
    """Return a statement with numbered parameters, and what returns their values in this order.

    For each named parameter sqlite3 asks SQLite for the name, and releases the interpreter's lock meanwhile.
    """
    names = list(dict.fromkeys(PARAMETER.findall(statement)))
    text = PARAMETER.sub(lambda found: f"?{names.index(found[1]) + 1}", statement)
    if len(names) > 1:
        return text, itemgetter(*names)
    return text, lambda params: tuple(params[name] for name in names)


def run_job(job: Awaitable[T]) -> T:
    """Run a job that never waits, and return its result."""
    try:
        next(job.__await__())
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise RuntimeError("a job on SQLite waited")


def text_or_bytes(value: bytes) -> str | bytes:
    """Return a text, or its bytes if it is not UTF-8: SQLite checks no encoding (sqlite.org/quirks)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def is_of_the_disk(error: Exception) -> bool:
    """Return whether an error is the disk's, not that of a statement or row."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError) or (code is not None and code & 0xFF in _OF_THE_DISK)
