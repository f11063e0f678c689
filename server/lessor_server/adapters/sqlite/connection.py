"""One SQLite connection on one thread, which runs jobs in batches with one commit each.

SQLite 3.7.0 to 3.51.2 can lose commits in WAL mode with several connections (sqlite.org, "WAL-reset
bug"), so there is exactly one, in exclusive mode. Jobs that arrive while a batch runs form the next batch.
The reads of a batch run before its transaction, so that none sees a write that is not durable yet. An
exception rolls back only its job. A failing disk rolls back the whole batch.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import aiosqlite

from lessor_server.adapters.idle import IdleCall
from lessor_server.adapters.sql.columns import Reader
from lessor_server.adapters.sql.transaction import Again, Job, Transaction, Writes
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable
from lessor_server.adapters.sqlite.transaction import (
    SqliteTransaction,
    is_of_the_disk,
    run_job,
    text_or_bytes,
)
from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.events import Event, StoreBack, StoreFailed

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

GATHER_SECONDS_PER_JOB: Final = 0.000_25
MAX_GATHER_SECONDS: Final = 0.003
"""How long the jobs of concurrent calls gather if the loop is busy, by the number of jobs in the last batch:
a batch costs two changes of threads, and a commit."""
PATIENT_JOBS, PATIENT_SECONDS = 4, 0.01
"""Steps of expired leases wait until they are so many, or for this time: no caller waits for them."""
RETRY_SECONDS: Final = 1.0
"""The interval of writes that check whether the store can write again."""


class _Place:
    """The paths of a database's files, and their identities at the start."""

    def __init__(self, path: Path) -> None:
        """Remember the files of the open database ``path``."""
        self._paths = (path, path.with_name(f"{path.name}-wal"))
        self._known = [_identity(path) for path in self._paths]

    def require_same(self) -> None:
        """Raise ``OSError`` if the database or its log is no longer the open file.

        Writes to a deleted or replaced file still succeed, but are lost at the next start, with the rows of
        users on AWS.
        """
        for number, path in enumerate(self._paths):
            now, before = _identity(path), self._known[number]
            if now == before:
                continue
            if before is not None:
                raise OSError(
                    f"{path.name} was deleted, moved or replaced while the server runs; put it"
                    " back, or create a backup and start the server on that"
                )
            self._known[number] = now


@dataclass(slots=True)
class _Job(Generic[T]):
    """One job and its outcome; ``result`` and ``error`` are set on the connection's thread."""

    work: Work[T]
    writes: Writes | None
    future: asyncio.Future[T]
    result: T | None = None
    error: Exception | None = None

    def read(self, connection: sqlite3.Connection) -> None:
        """Run the job and keep its exception for its caller."""
        try:
            self.result = self.work(connection)
        except Exception as error:  # noqa: BLE001 - it is for the caller, and ends nothing else
            self.error = _unavailable("failed", error) if is_of_the_disk(error) else error

    def write(self, connection: sqlite3.Connection) -> None:
        """Run the job, in a savepoint if it may have to be undone; raise only errors of the disk."""
        needs_savepoint = self.writes not in (Writes.ONE_LEASE, Writes.EXPIRED_LEASE)
        if needs_savepoint:
            connection.execute("SAVEPOINT job")
        try:
            self.result = self.work(connection)
        except Exception as error:
            if is_of_the_disk(error):
                raise
            self.error = error
            if needs_savepoint:
                connection.execute("ROLLBACK TO job")
        if needs_savepoint:
            connection.execute("RELEASE job")

    def settle(self) -> None:
        """Resolve the caller's future, unless it was cancelled."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class _BatchConnection(sqlite3.Connection):
    """A connection whose ``commit`` runs the current batch, so that a batch is one call to the thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text_factory = text_or_bytes
        self.batch: list[_Job[Any]] = []
        self.require_same_files: Callable[[], None] = lambda: None
        self.transaction = SqliteTransaction(self)
        self.before_commit: Callable[[], None] = lambda: None
        self.after_rollback: Callable[[], None] = lambda: None
        self.failure = ""
        """Why the last commit failed, or empty."""

    def commit(self) -> None:
        """Run the reads, then the writes in one transaction."""
        for job in self.batch:
            if job.writes is None:
                job.read(self)
        writes = [job for job in self.batch if job.writes is not None]
        if writes:
            self._write(writes)

    def _write(self, writes: list[_Job[Any]]) -> None:
        try:
            self._roll_back()  # a transaction that a failing disk did not let an earlier batch roll back
            self.execute("BEGIN IMMEDIATE")
            for job in writes:
                job.write(self)
            self.before_commit()
            self.require_same_files()
            self.execute("COMMIT")
            self.failure = ""
        except Exception as error:  # noqa: BLE001 - it is for the callers; the next batch may succeed
            self.failure = str(error)
            with suppress(sqlite3.Error):
                self._roll_back()
            self.after_rollback()
            for job in writes:
                job.error = _unavailable("cannot write", error)

    def _roll_back(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")


@dataclass(slots=True)
class Batches:
    """Runs jobs in batches; calls ``notify`` when the store fails and when it recovers."""

    connection: aiosqlite.Connection
    raw: _BatchConnection
    reader: Reader
    notify: Callable[[Event], None]
    _queue: list[_Job[Any]] = field(default_factory=list)
    _patient: list[_Job[Any]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    on_commit: Callable[[float], None] | None = field(default=None, init=False)
    """Gets the seconds of each batch with writes, the change of threads included."""
    config_version: int = field(default=0, init=False)
    """A number that changes before and after each write that may change more than leases."""
    lease_version: int = field(default=0, init=False)
    """A number that changes before each write that may change any lease, due or not."""
    _writes_begun: int = field(default=0, init=False)
    _writes_ended: int = field(default=0, init=False)

    @property
    def quiet_version(self) -> int | None:
        """Return a number that changes with each write; None while one waits or runs."""
        return self._writes_ended if self._writes_begun == self._writes_ended else None

    def read(self, work: Work[T]) -> asyncio.Future[T]:
        """Run a reading job; the future has its result."""
        return self._queued(work, None)

    def write(self, work: Work[T], writes: Writes = Writes.ANYTHING) -> asyncio.Future[T]:
        """Run a writing job; when the future has its result, it is durable."""
        return self._queued(work, writes)

    def _queued(self, work: Work[T], writes: Writes | None) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.config_version += writes is Writes.ANYTHING
        self.lease_version += writes is Writes.ANYTHING or writes is Writes.LEASES
        self._writes_begun += writes is not None
        job = _Job(work, writes, future)
        if writes is Writes.EXPIRED_LEASE:
            self._wait_for_others(job)
        else:
            self._queue.append(job)
            self._wake.set()
        return future

    def _wait_for_others(self, job: _Job[Any]) -> None:
        """Let a job wait for others of its kind; those of callers do not wait for them."""
        self._patient.append(job)
        if len(self._patient) >= PATIENT_JOBS:
            self._end_wait()
        elif len(self._patient) == 1:
            asyncio.get_running_loop().call_later(PATIENT_SECONDS, self._end_wait)

    def _end_wait(self) -> None:
        if self._patient:
            self._queue += self._patient
            self._patient = []
            self._wake.set()

    async def run(self) -> None:
        """Run batches until cancelled; while the store cannot write, check that each second."""
        failed = ""
        gathered = asyncio.Event()
        gathering = IdleCall(gathered.set)
        size = 1
        while True:
            await (self._wait_or_probe() if failed else self._wake.wait())
            gathering.begin(min(GATHER_SECONDS_PER_JOB * size, MAX_GATHER_SECONDS))
            await gathered.wait()
            gathered.clear()
            self._wake.clear()
            batch, self._queue = self._queue, []
            size = len(batch)
            self.raw.batch = batch
            began = asyncio.get_running_loop().time()
            try:
                await self.connection.commit()
            except Exception as error:  # noqa: BLE001 - the thread has ended; the callers get the error
                for job in batch:
                    job.error = _unavailable("failed", error)
            if self.on_commit is not None and any(job.writes is not None for job in batch):
                self.on_commit(asyncio.get_running_loop().time() - began)
            failed, before = self.raw.failure, failed
            if bool(failed) != bool(before):
                self.notify(StoreFailed(failed) if failed else StoreBack())
            for event in self.reader.news():
                self.notify(event)
            self.config_version += any(job.writes is Writes.ANYTHING for job in batch)
            self._writes_ended += sum(job.writes is not None for job in batch)
            for job in batch:
                job.settle()

    async def _wait_or_probe(self) -> None:
        """Wait for jobs; after a second without one, queue a write of the time."""
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            probe = self._queued(lambda _: None, Writes.LEASES)
            probe.add_done_callback(lambda future: future.exception())


@dataclass(frozen=True, slots=True)
class SqliteJobs:
    """Runs the jobs of the store; each is one of a batch, in which no other process takes part."""

    batches: Batches
    transaction: Transaction

    @property
    def reader(self) -> Reader:
        """Return what reads the rows."""
        return self.batches.reader

    def measure_commits(self, on_commit: Callable[[float], None]) -> None:
        """Call ``on_commit`` with the seconds of each batch that writes."""
        self.batches.on_commit = on_commit

    async def read(self, job: Job[T], *, single: bool = False) -> T:  # noqa: ARG002 - a batch is one state
        """Run a job that only reads."""
        return await self.batches.read(lambda _: run_job(job(self.transaction)))

    async def write(
        self,
        job: Job[T],
        again: Again[T] | None,  # noqa: ARG002 - no connection is lost
        writes: Writes = Writes.LEASES,
    ) -> T:
        """Run a job that writes leases; when this returns, its changes are durable."""
        return await self.batches.write(lambda _: run_job(job(self.transaction)), writes)

    async def write_alone(self, job: Job[T], again: Again[T] | None) -> T:  # noqa: ARG002 - as above
        """Run a job that writes anything; batches run one after the other in any case."""
        return await self.batches.write(lambda _: run_job(job(self.transaction)))


@asynccontextmanager
async def connect(
    path: Path, prepare: Work[T], reader: Reader, notify: Callable[[Event], None]
) -> AsyncIterator[tuple[Batches, T]]:
    """Open the one connection, run ``prepare`` on it, and then its batches while the block runs.

    Yields the batches and the result of ``prepare``, whose exceptions are raised.

    Raises:
        DatabaseUnusable: The file cannot be opened.
    """
    raws: list[_BatchConnection] = []

    def factory(*args: Any, **kwargs: Any) -> _BatchConnection:
        raws.append(_BatchConnection(*args, **kwargs))
        return raws[0]

    _require_openable(path)
    async with aiosqlite.connect(path, isolation_level=None, factory=factory) as connection:
        first = _Job(prepare, writes=None, future=asyncio.get_running_loop().create_future())
        raws[0].batch = [first]
        await connection.commit()
        first.settle()
        raws[0].require_same_files = _Place(path).require_same
        prepared: T = await first.future
        batches = Batches(connection, raws[0], reader, notify)
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(batches.run())
            try:
                yield batches, prepared
            finally:
                runner.cancel()


def _require_openable(path: Path) -> None:
    """Raise ``DatabaseUnusable`` if SQLite cannot open a file, for which aiosqlite would leak a thread."""
    try:
        sqlite3.connect(path).close()
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"{path} cannot be opened: {error}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a file's identity on this system; None if it does not exist."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _unavailable(how: str, error: Exception) -> LessorError:
    return StoreUnavailable(f"the store {how}: {error}", retry_in=1.0)
