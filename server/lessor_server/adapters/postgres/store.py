"""The PostgreSQL store: one database, which several processes may share."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Final, NoReturn

from asyncpg import Pool, Record

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.batches import NaturalBatches
from lessor_server.adapters.postgres.clock import SYNC_SECONDS, DatabaseClock, SharedTime
from lessor_server.adapters.postgres.connection import (
    DRIVER_ERRORS,
    DatabaseRefused,
    PostgresJobs,
    open_pool,
    refusal,
)
from lessor_server.adapters.postgres.leases import PostgresLeases
from lessor_server.adapters.postgres.migrate import (
    migrate_schema,
    read_schema,
    read_tables,
    require_usable,
    schema_migrations,
)
from lessor_server.adapters.postgres.replicas import StoredReplicas
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.postgres.transaction import PostgresTransaction, Session
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.clock import MARK, mark_of, read_mark
from lessor_server.adapters.sql.columns import Reader
from lessor_server.adapters.sql.config import StoredConfig
from lessor_server.adapters.sql.kept import Kept
from lessor_server.adapters.sql.keyring import HASH_KEY, StoredKeyring
from lessor_server.adapters.sql.login_statements import DROP_LOGIN_TOKENS
from lessor_server.adapters.sql.logins import StoredLogins
from lessor_server.adapters.sql.rotations import StoredRotations
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sql.stored_keys import KeysChanged, StoredKeys, read_keys
from lessor_server.adapters.sql.transaction import REPEAT, Transaction, require_row
from lessor_server.adapters.sql.upkeep import StoredUpkeep
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.errors.preconditions import BackupByDatabase
from lessor_server.domain.events import Event
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.revocation.expiry_hold import STORE_ROLLED_BACK
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import StoredContext, WrappedKey

INSTANCE: Final = "instance"
INCARNATION: Final = "incarnation"
AUDIT_KEY: Final = "audit_key/"
"""What the keys of ``meta`` begin with that have the public part of a key that signs checkpoints."""
_ID: Final = re.compile("[0-9a-f]{16}")
PROBE_SECONDS: Final = 1.0
MAX_AHEAD_US: Final = 1_000_000
"""How far the time in another process may be ahead."""

_TABLES_OF_KEYS: Final = ("sealing_keys", "roots", "rotations")
"""The tables that a start reads its keys from."""

Verify = Callable[[StoredKeys], Awaitable[RowSeals | None]]
"""Verifies the sealing key by what the database says; what it returns authenticates rows."""


async def _verify_nothing(_: StoredKeys) -> None:
    """Open a database whatever its key."""


class PostgresStore(
    StoredConfig,
    StoredUpkeep,
    PostgresLeases,
    StoredRotations,
    StoredKeyring,
    StoredLogins,
    StoredReplicas,
):
    """The whole store."""

    def __init__(self, jobs: PostgresJobs, clock: SharedTime, schema: int, instance: str) -> None:
        """Serve the database of the installation ``instance``, which was migrated to ``schema``."""
        super().__init__(jobs, clock, schema, instance)
        self._contexts = Kept[tuple[str, str], StoredContext]()
        self._covers = NaturalBatches(self._read_covers, lambda _: object())

    def batches(self) -> list[Coroutine[object, object, NoReturn]]:
        """Return what must run while the store is used."""
        return [self.intents.run(), self.steps.run(), self._covers.run()]

    async def _read_covers(self, items: Sequence[None]) -> list[object]:
        row = await self._jobs.read(lambda tx: tx.row(own.COVER, {}), single=True)
        return [row[0] if row else None] * len(items)

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        """Read mount, root and role, or return what was read of them since the configuration changed."""
        if request_id:
            return await super().load_issue_context(mount, role, owner, request_id)
        cover = await self._covers.put(None)
        kept = self._contexts.get(cover, (mount, role))
        if kept is None:
            kept = await super().load_issue_context(mount, role)
            if cover is not None:
                self._contexts.put(cover, (mount, role), kept)
        return kept

    async def backup(self, _path: str) -> tuple[str, int]:
        raise BackupByDatabase("the store is PostgreSQL, which has backups of its own")

    is_alone = False
    """Whether no other process uses the database, so that every claim is stale."""
    known_keys: frozenset[str] = frozenset()
    """The ids of the data keys that the start has verified."""

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        """Delete tombstones in transactions of limited size; return how many."""
        purged, last = 0, own.MAX_PURGED
        while last == own.MAX_PURGED:
            last = await super().purge_tombstones(account, listed_us)
            purged += last
        return purged

    async def void_stale_claims(self) -> int:
        """Void every claim if no other process can run; otherwise claims end by themselves."""
        return await super().void_stale_claims() if self.is_alone else 0

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on; hold expiries if the database was restored.

        A restored database lacks later issues, renewals and revocations. It keeps no login token.
        """
        await super().unlock(seals, accept=accept)
        await self._note_incarnation()

    async def begin_keyring(self, key: WrappedKey, seals: RowSeals) -> int:
        values = await super().begin_keyring(key, seals)
        self.known_keys = frozenset((key.id,))
        await self._note_incarnation()
        return values

    async def _note_incarnation(self) -> None:
        async def job(tx: Transaction) -> None:
            (now,) = await require_row(tx, own.INCARNATION, {})
            row = await tx.row(sql.GET_META, {"key": INCARNATION})
            if row is not None and row[0] != now:
                await self._macs.put_hold(tx, STORE_ROLLED_BACK)
                await tx.change(DROP_LOGIN_TOKENS, {})  # some may have been revoked since
            await tx.change(sql.PUT_META, {"key": INCARNATION, "value": now})

        await self._jobs.write_alone(job, REPEAT)

    async def share_hash_key(self, sealed: bytes) -> bytes:
        """Store the sealed key of the audit's hashes, unless there is one; return the stored one."""

        async def job(tx: Transaction) -> bytes:
            await tx.change(own.ADD_META, {"key": HASH_KEY, "value": sealed.hex()})
            return bytes.fromhex((await require_row(tx, sql.GET_META, {"key": HASH_KEY}))[0])

        return await self._jobs.write_alone(job, REPEAT)

    async def note_audit_key(self, public: str) -> None:
        """Store the public part of a key that signs checkpoints, with the time of its first use."""
        params: rows.Params = {"key": f"{AUDIT_KEY}{public}", "value": str(self.now())}
        await self._repeatable(own.ADD_META, params)

    async def _require_known_keys(self, tx: Transaction) -> None:
        """Raise ``KeysChanged`` if another process has stored or dropped data keys since they were read."""
        stored = await read_keys(tx, _TABLES_OF_KEYS)
        known, self.known_keys = self.known_keys, stored.key_ids
        if known != self.known_keys:
            raise KeysChanged(stored)

    async def _read_cutoff(self, tx: Transaction, ids: IdRange) -> int:
        """Wait for issues that are about to commit; return when the last lease of the range has begun.

        The estimate of the clock in another process may be some milliseconds ahead.
        """
        params = rows.range_params(ids)
        await tx.rows(own.LOCK_MOUNTS_OF_RANGE, params)
        now = self.now()
        (newest_us,) = await require_row(tx, own.NEWEST_OF_RANGE, params | {"until": now + MAX_AHEAD_US})
        return max(now, newest_us or 0)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a database is opened: ``migrate`` None migrates an empty one only.

    ``is_alone``: no other process uses the database.
    """

    migrate: bool | None = None
    notify: Callable[[Event], None] = lambda _: None
    verify: Verify = _verify_nothing
    is_alone: bool = False


@asynccontextmanager
async def open_postgres(
    target: DatabaseTarget, clock: DatabaseClock, opening: Opening | None = None
) -> AsyncIterator[PostgresStore]:
    """Connect to a database, migrate it if ``opening`` says so, and serve it while the block runs.

    Raises:
        DatabaseRefused: The database cannot be used, for a reason and with a fix that the text names.
    """
    opening = opening or Opening()
    async with open_pool(target) as pool:
        reader = Reader()
        reader.macs = RowMacs(shared=True)
        jobs = PostgresJobs(pool, reader, opening.notify)
        async with _start_connection(target, pool) as connection:
            stored = await read_keys_of(connection)
        await opening.verify(stored)  # without a connection: it may wait for AWS KMS
        async with _start_connection(target, pool) as connection:
            schema = await _prepare(connection, opening)
            await clock.sync(PostgresTransaction(connection, writes=False))
        mark_us = await jobs.write(lambda tx: read_mark(reader, tx), REPEAT)
        instance = await jobs.write(_find_instance, REPEAT)
        service = SharedTime(clock, mark_us)
        store = PostgresStore(jobs, service, schema, instance)
        store.is_alone = opening.is_alone
        store.known_keys = stored.key_ids
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in (*store.batches(), _keep_up(jobs, clock, service))]
            try:
                yield store
            finally:
                for task in tasks:
                    task.cancel()


async def read_keys_of(connection: Session) -> StoredKeys:
    """Return what a database says about its keys, in one snapshot: another server may store the first now."""
    # Not readonly: a database that only reads is refused by that setting.
    async with connection.transaction(isolation="repeatable_read"):
        if not await read_schema(connection):
            return StoredKeys()
        return await read_keys(PostgresTransaction(connection, writes=False), await read_tables(connection))


async def _prepare(connection: Session, opening: Opening) -> int:
    """Migrate a database if that is wanted, and verify its tables; return its schema."""
    schema, newest = await read_schema(connection), schema_migrations()[-1][0]
    if schema < newest:
        if opening.migrate is False or (opening.migrate is None and schema):
            raise DatabaseRefused(
                f"the database has schema {schema}, and this version needs {newest}",
                fix="run lessor migrate, or start with store.migrate = true",
            )
        schema = await migrate_schema(connection)
    await require_usable(connection)
    if await connection.fetchval("SELECT EXISTS (SELECT 1 FROM meta WHERE key = $1)", own.UNFINISHED):
        raise DatabaseRefused(
            "a copy into the database was cut off", fix="run lessor store copy again; it continues"
        )
    return schema


async def read_database_schema(target: DatabaseTarget) -> tuple[int, int]:
    """Return the schema of a database, and the newest; raises ``DatabaseRefused``."""
    async with open_pool(target) as pool, _start_connection(target, pool) as connection:
        return await read_schema(connection), schema_migrations()[-1][0]


async def read_database_keys(target: DatabaseTarget) -> StoredKeys:
    """Return what a database says about its keys; changes nothing; raises ``DatabaseRefused``."""
    async with open_pool(target) as pool, _start_connection(target, pool) as connection:
        return await read_keys_of(connection)


async def read_database_time(target: DatabaseTarget) -> float:
    """Return the time of a database, in seconds since the epoch; raises ``DatabaseRefused``."""
    async with open_pool(target) as pool, _start_connection(target, pool) as connection:
        found: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return found


@dataclass(frozen=True, slots=True)
class StoredAuditKeys:
    """What a database has for the audits of its servers; the public keys with their first use, in order."""

    data_keys: tuple[WrappedKey, ...] = ()
    sealed_hash_key: bytes | None = None
    public_keys: tuple[tuple[str, int], ...] = ()


async def read_audit_keys(target: DatabaseTarget) -> StoredAuditKeys:
    """Return the keys of audits; changes nothing; raises ``DatabaseRefused``."""
    async with open_pool(target) as pool, _start_connection(target, pool) as connection:
        return await read_audit_keys_of(connection)


async def read_audit_keys_of(connection: Session) -> StoredAuditKeys:
    """Return the keys of audits in one snapshot: a rotation seals that of hashes again."""
    async with connection.transaction(isolation="repeatable_read"):
        data_keys = (await read_keys_of(connection)).data_keys
        if not data_keys:
            return StoredAuditKeys()
        found = {str(key): str(value) for key, value in await connection.fetch(own.AUDIT_KEYS)}
    sealed = found.pop(HASH_KEY, None)
    public = sorted(((key.removeprefix(AUDIT_KEY), int(us)) for key, us in found.items()), key=itemgetter(1))
    return StoredAuditKeys(data_keys, bytes.fromhex(sealed) if sealed else None, tuple(public))


async def migrate_database(target: DatabaseTarget) -> tuple[int, int]:
    """Migrate a database; return its schema, and the newest; raises ``DatabaseRefused``."""
    async with open_pool(target) as pool, _start_connection(target, pool) as connection:
        await migrate_schema(connection)
        await require_usable(connection)
        return await read_schema(connection), schema_migrations()[-1][0]


@asynccontextmanager
async def _start_connection(target: DatabaseTarget, pool: Pool[Record]) -> AsyncIterator[Session]:
    """Use a connection; each failure names the database."""
    try:
        async with pool.acquire() as connection:
            yield connection
    except DatabaseRefused as error:
        raise DatabaseRefused(f"{target}: {error.message}", fix=error.fix) from None
    except (*DRIVER_ERRORS, OSError) as error:
        raise refusal(target, error) from None


async def _find_instance(tx: Transaction) -> str:
    """Return the installation's id; the first process draws it."""
    await tx.change(own.ADD_META, {"key": INSTANCE, "value": os.urandom(8).hex()})
    row = await tx.row(sql.GET_META, {"key": INSTANCE})
    if row is None or not _ID.fullmatch(str(row[0])):
        raise DatabaseRefused("meta.instance is not a valid installation id", fix="restore a backup")
    return str(row[0])


async def _keep_up(jobs: PostgresJobs, clock: DatabaseClock, service: SharedTime) -> NoReturn:
    """Follow the database's clock and store the service's time; while the database fails, probe it."""
    incarnation = ""
    while True:
        with suppress(StoreUnavailable):
            await jobs.write(partial(_write_mark, service), REPEAT)
            incarnation = await _follow(jobs, clock, incarnation)
            service.follow()
            await jobs.probe()
        if jobs.failure:
            await asyncio.sleep(PROBE_SECONDS)
            continue
        with suppress(TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS):
                await jobs.has_failed.wait()


async def _follow(jobs: PostgresJobs, clock: DatabaseClock, incarnation: str) -> str:
    """Synchronise with the database's clock; store its incarnation if a fail-over has changed it."""

    async def read(tx: Transaction) -> str:
        await clock.sync(tx)
        return str((await require_row(tx, own.INCARNATION, {}))[0])

    now = await jobs.read(read, single=True)
    if incarnation and now != incarnation:
        await jobs.write(lambda tx: tx.change(sql.PUT_META, {"key": INCARNATION, "value": now}), REPEAT)
    return now


async def _write_mark(service: SharedTime, tx: Transaction) -> None:
    await tx.change(own.MARK, {"key": MARK, "value": mark_of(service.now())})
