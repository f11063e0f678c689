"""One SQLite connection on one thread, where a batch of jobs is one trip and one commit.

SQLite 3.7.0 to 3.51.2 can lose commits in WAL mode with several connections (sqlite.org, "WAL-reset
bug"), so there is exactly one, in exclusive mode. Whatever arrives while a batch runs is the next batch:
grouped without a timer. The reads of a batch run before its transaction, so that none sees a write that
is not yet durable. A statement that fails takes back the whole batch, and a job that raises an error of
ours has written nothing: so no job is ever half done.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite

from lessor_server.domain.errors import LessorError, StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


@dataclass(slots=True)
class _Job(Generic[T]):
    """One job and its fate; ``result`` and ``error`` are set on the connection's thread."""

    work: Work[T]
    writes: bool
    future: asyncio.Future[T]
    result: T | None = None
    error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        try:
            self.result = self.work(connection)
        except LessorError as error:
            self.error = error
        except (sqlite3.Error, OSError) as error:
            self.error = StoreUnavailable(f"the store failed: {error}", retry_in=1.0)
            if self.writes:
                raise

    def settle(self) -> None:
        """Tell the caller, unless it has gone away."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class _BatchConnection(sqlite3.Connection):
    """A connection whose ``commit`` runs the batch at hand, so that a batch is one trip to the thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch: list[_Job[Any]] = []
        self.before_commit: Callable[[sqlite3.Connection], None] = lambda _: None

    def commit(self) -> None:
        """Run the reads, then the writes in one transaction."""
        for job in self.batch:
            if not job.writes:
                job.run(self)
        writes = [job for job in self.batch if job.writes]
        if not writes:
            return
        try:
            self.execute("BEGIN IMMEDIATE")
            for job in writes:
                job.run(self)
            self.before_commit(self)
            self.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            if self.in_transaction:
                self.execute("ROLLBACK")
            for job in writes:
                job.error = StoreUnavailable(f"the store cannot write: {error}", retry_in=1.0)


@dataclass(slots=True)
class Batches:
    """Takes jobs and runs them in batches."""

    connection: aiosqlite.Connection
    raw: _BatchConnection
    _queue: list[_Job[Any]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, work: Work[T]) -> T:
        """Run a job that changes nothing and return its result."""
        return await self._put(work, writes=False)

    async def write(self, work: Work[T]) -> T:
        """Run a job of one writing statement; when this returns, it is durable."""
        return await self._put(work, writes=True)

    async def _put(self, work: Work[T], *, writes: bool) -> T:
        job = _Job(work, writes, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._wake.set()
        result: T = await job.future
        return result

    async def run(self) -> None:
        """Run batches until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)  # let everyone who is ready join
            self._wake.clear()
            batch, self._queue = self._queue, []
            self.raw.batch = batch
            await self.connection.commit()
            for job in batch:
                job.settle()


@asynccontextmanager
async def connected(path: Path, prepare: Work[T]) -> AsyncIterator[tuple[Batches, T]]:
    """Open the one connection, run ``prepare`` on it, and then its batches while the block runs.

    Yields the batches and what ``prepare`` returned; what it raises is raised here.
    """
    raws: list[_BatchConnection] = []

    def factory(*args: Any, **kwargs: Any) -> _BatchConnection:
        raws.append(_BatchConnection(*args, **kwargs))
        return raws[0]

    async with aiosqlite.connect(path, isolation_level=None, factory=factory) as connection:
        first = _Job(prepare, writes=False, future=asyncio.get_running_loop().create_future())
        raws[0].batch = [first]
        await connection.commit()
        first.settle()
        prepared: T = await first.future
        batches = Batches(connection, raws[0])
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(batches.run())
            try:
                yield batches, prepared
            finally:
                runner.cancel()
