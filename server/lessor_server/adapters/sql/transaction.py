"""What a job may do in a transaction, whatever the database; a job is written once for all databases.

Statements have named parameters, ``:name``. A database that needs another text translates the statement.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, Protocol, TypeVar

from lessor_server.adapters.sql.columns import Reader, Row

T = TypeVar("T")
Params = Mapping[str, "str | int | float | bytes | None"]
PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")
"""A named parameter of a statement."""


class Transaction(Protocol):
    """A transaction of the database, in which a job runs."""

    @property
    def is_durable(self) -> bool:
        """Return whether what the job reads is committed: it has not written, and others' writes are."""
        ...

    async def row(self, statement: str, params: Params) -> Row | None:
        """Run a statement; return its first row, or None."""
        ...

    async def rows(self, statement: str, params: Params) -> Sequence[Row]:
        """Run a statement; return all of its rows."""
        ...

    def stream(self, statement: str, params: Params, chunk: int, /) -> AsyncGenerator[Row, None]:
        """Yield the rows of a query; ``chunk`` is how many the caller probably needs."""
        ...

    async def attempt(self, statement: str, params: Params) -> tuple[Row | None, str]:
        """Run a statement; return its first row, or the problem that it has with what the row holds."""
        ...

    async def change(self, statement: str, params: Params) -> int:
        """Run a statement; return how many rows it has changed."""
        ...

    async def change_many(self, statement: str, many: Sequence[Params]) -> None:
        """Run a statement once for each of ``many``."""
        ...


Job = Callable[[Transaction], Awaitable[T]]
Again = Callable[[Transaction, T], Awaitable[T]]
"""Finds out whether a job was committed that has returned this result, and repeats it if it was not."""
REPEAT: Final = None
"""A job that may be committed twice, because the second time changes nothing: it is simply repeated."""


class Writes(Enum):
    """What a writing job may change."""

    ANYTHING = auto()
    LEASES = auto()
    """Leases, by any number of statements."""
    DUE_LEASES = auto()
    """Leases that are due."""
    ONE_LEASE = auto()
    """One lease, by one statement. A failing statement undoes itself, so such a job needs no savepoint."""
    EXPIRED_LEASE = auto()
    """One lease that has expired, by one statement; no caller waits for it."""


class Jobs(Protocol):
    """Runs jobs in transactions; raises ``StoreUnavailable`` if the database can't be used.

    A job may run more than once: it changes nothing but the database.
    """

    @property
    def reader(self) -> Reader:
        """Return what reads the rows."""
        ...

    def measure_commits(self, on_commit: Callable[[float], None]) -> None:
        """Call ``on_commit`` with the seconds of each transaction that writes."""
        ...

    async def read(self, job: Job[T], *, single: bool = False) -> T:
        """Run a job that only reads, in one state of the database; ``single``: it runs one statement."""
        ...

    async def write(self, job: Job[T], again: Again[T] | None, writes: Writes = Writes.LEASES) -> T:
        """Run a job that writes leases; when this returns, its changes are durable.

        Others may write other rows meanwhile. If the connection was lost, the job may have been committed or
        not. Then ``again`` runs; ``REPEAT`` runs the job once more.
        """
        ...

    async def write_alone(self, job: Job[T], again: Again[T] | None) -> T:
        """Run a job that writes configuration or MACs; no other such job runs meanwhile, in any process."""
        ...


async def require_row(tx: Transaction, statement: str, params: Params) -> Row:
    """Run a statement; return its first row, which must exist."""
    row = await tx.row(statement, params)
    assert row is not None, "the statement returns a row in any case"
    return row
