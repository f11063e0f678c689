"""A pool of connections to PostgreSQL, which runs jobs in transactions and outlives failures of the server.

The server rolls a transaction back that conflicts with another one; it is run again, as is one whose
connection ended before its commit. When it ended in the commit, nobody knows whether that happened: each job
finds out on another connection. If there is none in time, its caller gets ``StoreUnavailable``, as if a disk
fails.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import asyncpg
from asyncpg import Pool, Record

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.postgres.transaction import PostgresTransaction, Session
from lessor_server.adapters.sql.columns import Reader
from lessor_server.adapters.sql.transaction import Again, Job, Transaction, Writes
from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.events import Event, StoreBack, StoreFailed

T = TypeVar("T")
Run = Callable[[Session], Awaitable[T]]

MAX_CONNECTIONS: Final = 10
CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 2.0
MAX_READ_SECONDS: Final = 5.0
MAX_WRITE_SECONDS: Final = 15.0
"""How long a job may take with all of its retries, before its caller gets ``StoreUnavailable``."""
MAX_CONFLICTS: Final = 10
"""How often a transaction is run again that the server has rolled back because of another one."""
MAX_LOST: Final = 3
"""How often a transaction that was not committed is run again on another connection."""
PAUSE_SECONDS: Final = 0.002
RECONNECT_SECONDS: Final = 0.2
RELEASE_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises itself: an answer of the server, a connection that has ended, a wrong value."""
_CONFLICTS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The server has rolled the transaction back: it may be run again (PostgreSQL, appendix A, class 40)."""
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    ssl.SSLError,
    OSError,
    TimeoutError,
)
"""The connection has ended, or leads to a server that cannot write. Some of these are ``_REFUSED``, too."""
_BUSY: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""The server works, but not fast enough; it has rolled the transaction back."""
_REFUSED: Final = (
    *_BUSY,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
)
"""The server has refused the statement: its disk is full, a lock is taken, rights were withdrawn."""
SESSION: Final = {
    "application_name": "lessor",
    "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
    "lock_timeout": str(int(LOCK_SECONDS * 1000)),
    "idle_in_transaction_session_timeout": str(int(MAX_WRITE_SECONDS * 1000)),
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
}
"""What each session sets; the times are in milliseconds, PostgreSQL's unit."""


class DatabaseRefused(LessorError):
    """The server does not start: it cannot connect to the database, or cannot use it."""

    reason = "DATABASE_REFUSED"
    fix = "correct store.url"


class _NotConnected(Exception):
    """There is no connection, so nothing was sent."""


class _FateUnknown(Exception, Generic[T]):
    """The connection ended in a commit, which may have happened."""

    def __init__(self, result: T) -> None:
        """Keep what the job has returned."""
        super().__init__()
        self.result = result


@dataclass(slots=True)
class PostgresJobs:
    """Runs jobs; calls ``notify`` when the database fails, and when ``probe`` finds that it works again."""

    pool: Pool[Record]
    reader: Reader
    notify: Callable[[Event], None]
    rng: random.Random = field(default_factory=random.SystemRandom)
    failure: str = ""
    """Why the database does not work, or empty."""
    has_failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Is set while the database does not work."""
    on_commit: Callable[[float], None] | None = None

    def measure_commits(self, on_commit: Callable[[float], None]) -> None:
        """Call ``on_commit`` with the seconds of each transaction that writes."""
        self.on_commit = on_commit

    async def read(self, job: Job[T], *, single: bool = False) -> T:
        """Run a job that only reads: in one snapshot, unless it runs a ``single`` statement."""

        async def run(connection: Session) -> T:
            tx = PostgresTransaction(connection, writes=False)
            if single:
                return await job(tx)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await job(tx)

        return await self._run(run, MAX_READ_SECONDS)

    async def write(
        self,
        job: Job[T],
        again: Again[T] | None,
        writes: Writes = Writes.LEASES,  # noqa: ARG002 - a transaction is needed in any case
    ) -> T:
        """Run a job in a transaction; if its fate is unknown, run ``again``."""
        began = asyncio.get_running_loop().time()

        def find_out(first: T) -> Run[T]:
            return _transacting(job if again is None else lambda tx: again(tx, first))

        result = await self._run(_transacting(job), MAX_WRITE_SECONDS, find_out)
        if self.on_commit is not None:
            self.on_commit(asyncio.get_running_loop().time() - began)
        return result

    async def write_alone(self, job: Job[T], again: Again[T] | None) -> T:
        """Run a job that writes configuration or MACs: it locks them first, for all processes."""

        async def find_out(tx: Transaction, first: T) -> T:
            return await _locking(job if again is None else lambda locked: again(locked, first))(tx)

        return await self.write(_locking(job), find_out)

    async def probe(self) -> None:
        """Check whether the database works again, if it has failed; raises ``StoreUnavailable`` if not.

        A database whose disk is full answers reads, and small changes as well.
        """
        if self.failure:
            await self._run(_write_probe, MAX_WRITE_SECONDS)
            self.failure = ""
            self.has_failed.clear()
            self.notify(StoreBack())

    async def _run(self, run: Run[T], seconds: float, find_out: Callable[[T], Run[T]] | None = None) -> T:
        """Run a transaction for at most ``seconds``; if its fate is unknown, run what finds it out."""
        until = asyncio.get_running_loop().time() + seconds
        conflicts = lost = 0
        is_unknown = False
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await self._attempt(run)
            except _CONFLICTS as error:
                conflicts += 1
                if conflicts > MAX_CONFLICTS:
                    raise _unavailable(error) from error
                await asyncio.sleep(PAUSE_SECONDS * 2**conflicts * self.rng.random())
            except (_NotConnected, _FateUnknown, *_LOST) as error:
                if isinstance(error, ValueError):
                    raise  # the driver refuses a value
                lost += 1
                self._note_failure(error)
                if isinstance(error, _FateUnknown) and find_out is not None:
                    run, is_unknown = find_out(error.result), True
                gives_up = lost > MAX_LOST or isinstance(error, _NotConnected)
                is_late = asyncio.get_running_loop().time() + RECONNECT_SECONDS > until
                if is_late or (gives_up and not is_unknown):
                    raise _unavailable(error) from error
                if is_unknown:
                    await asyncio.sleep(RECONNECT_SECONDS)
            except _REFUSED as error:
                self._note_failure(error)
                raise _unavailable(error) from error

    async def _attempt(self, run: Run[T]) -> T:
        """Run a transaction once."""
        try:
            connection = await self.pool.acquire(timeout=CONNECT_SECONDS)
        except (*_LOST, *_REFUSED) as error:
            raise _NotConnected from error
        try:
            result = await run(connection)
        except (_FateUnknown, *_LOST):
            _end(connection)
            await self.pool.expire_connections()  # the others lead to the same server
            raise
        finally:
            with suppress(*_LOST):
                await self.pool.release(connection, timeout=RELEASE_SECONDS)
            for event in self.reader.news():
                self.notify(event)
        return result

    def _note_failure(self, error: Exception) -> None:
        if not self.failure and not isinstance(error, _BUSY):
            self.failure = _describe(error)
            self.has_failed.set()
            self.notify(StoreFailed(self.failure))


def _end(connection: Session) -> None:
    """End a connection: the driver would report its release in a transaction as a bug."""
    with suppress(asyncpg.InterfaceError):  # it has ended already
        connection.terminate()


def _transacting(job: Job[T]) -> Run[T]:
    async def run(connection: Session) -> T:
        transaction = connection.transaction()
        try:
            await transaction.start()
        except asyncio.CancelledError:
            _end(connection)  # nobody knows whether the transaction has begun
            raise
        try:
            result = await job(PostgresTransaction(connection, writes=True))
        except BaseException:
            with suppress(asyncpg.PostgresError, *_LOST):
                await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except _LOST as error:
            raise _FateUnknown(result) from error
        return result

    return run


async def _write_probe(connection: Session) -> None:
    """Commit a change of one row; before that, write more than is free in the files of a table."""
    async with connection.transaction():
        await connection.execute(own.PROBE)
        await connection.execute("SAVEPOINT probe")
        await connection.execute(own.PROBE_ROOM)
        await connection.execute("ROLLBACK TO SAVEPOINT probe")


def _locking(job: Job[T]) -> Job[T]:
    async def run(tx: Transaction) -> T:
        await tx.row(own.LOCK_CONFIGURATION, {})
        return await job(tx)

    return run


async def _keep_session(_: object) -> None:
    """Leave a connection as it is: its transaction has ended, and jobs change nothing else of it."""


@asynccontextmanager
async def open_pool(target: DatabaseTarget) -> AsyncIterator[Pool[Record]]:
    """Connect to a database, and keep at most ``MAX_CONNECTIONS`` open while the block runs.

    Raises:
        DatabaseRefused: There is no connection, or not one that this server can use.
    """
    try:
        pool = await asyncpg.create_pool(
            **target.connect_arguments(),
            min_size=0,
            max_size=MAX_CONNECTIONS,
            reset=_keep_session,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + 1,
            server_settings=SESSION,
        )
        async with pool.acquire(timeout=CONNECT_SECONDS):
            pass  # a first connection, which shows what is wrong
    except (asyncpg.PostgresError, ValueError, *_LOST) as error:
        raise refusal(target, error) from None
    try:
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        pool.terminate()


def refusal(target: DatabaseTarget, error: Exception) -> DatabaseRefused:
    """Return why a database cannot be used, with the fix for each cause; no text has a password."""
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            fix = "correct the user and the password in store.url or store.password_file"
        case asyncpg.InvalidCatalogNameError():
            fix = "create the database, or correct its name in store.url"
        case asyncpg.InsufficientPrivilegeError():
            fix = "grant the role CONNECT on the database, and its schema's CREATE and USAGE"
        case asyncpg.TargetServerAttributeNotMatched() | asyncpg.ReadOnlySQLTransactionError():
            fix = "name the primary in store.url, or all servers with target_session_attrs=read-write"
        case ssl.SSLError():
            fix = (
                "name the authority of the server's certificate in store.ca_file, and the host that it is for"
            )
        case ConnectionError() if "SSL" in str(error):
            fix = "turn on TLS in PostgreSQL, or correct sslmode in store.url"
        case asyncpg.ClientConfigurationError() | asyncpg.UndefinedObjectError() | ValueError():
            fix = "correct store.url, store.ca_file and store.password_file"
        case _:
            fix = "start the database, or correct the host and the port in store.url"
    return DatabaseRefused(f"{target}: {_describe(error)}", fix=fix)


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the store failed: {_describe(error)}", retry_in=1.0)


def _describe(error: BaseException) -> str:
    """Return what an error says, on one line."""
    while isinstance(error, (_NotConnected, _FateUnknown)) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, TimeoutError) and not str(error):
        return "it did not answer in time"
    return " ".join(str(error).split()) or type(error).__name__
