"""The PostgreSQL store: one database, which several processes may share."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

import asyncpg
from asyncpg import Pool, Record

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.clock import SYNC_SECONDS, DatabaseClock, SharedTime
from lessor_server.adapters.postgres.connection import DatabaseRefused, PostgresJobs, open_pool, refusal
from lessor_server.adapters.postgres.leases import PostgresLeases
from lessor_server.adapters.postgres.migrate import (
    migrate_schema,
    read_schema,
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
from lessor_server.adapters.sql.keyring import HASH_KEY, StoredKeyring
from lessor_server.adapters.sql.rotations import StoredRotations
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sql.stored_keys import KeyringBegun, StoredKeys, read_keys
from lessor_server.adapters.sql.transaction import Transaction, require_row
from lessor_server.adapters.sql.upkeep import StoredUpkeep
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.errors.preconditions import BackupByDatabase
from lessor_server.domain.events import Event
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.sealing_ports import RowSeals

INSTANCE: Final = "instance"
_ID: Final = re.compile("[0-9a-f]{16}")
PROBE_SECONDS: Final = 1.0
MAX_AHEAD_US: Final = 1_000_000
"""How far the time in another process may be ahead."""

_TABLES_OF_KEYS: Final = ("sealing_keys", "roots", "rotations")
"""The tables that every schema has of those that a start reads its keys from."""

Verify = Callable[[StoredKeys], Awaitable[RowSeals | None]]
"""Verifies the sealing key by what the database says; what it returns authenticates rows."""


async def _verify_nothing(_: StoredKeys) -> None:
    """Open a database whatever its key."""


class PostgresStore(
    StoredConfig, StoredUpkeep, PostgresLeases, StoredRotations, StoredKeyring, StoredReplicas
):
    """The whole store."""

    async def backup(self, _path: str) -> tuple[str, int]:
        raise BackupByDatabase("the store is PostgreSQL, which has backups of its own")

    known_keys: frozenset[str] = frozenset()
    """The ids of the data keys that the start has verified."""

    async def share_hash_key(self, sealed: bytes) -> bytes:
        """Store the sealed key of the audit's hashes, unless there is one; return the stored one."""

        async def job(tx: Transaction) -> bytes:
            await tx.change(own.ADD_META, {"key": HASH_KEY, "value": sealed.hex()})
            return bytes.fromhex((await require_row(tx, sql.GET_META, {"key": HASH_KEY}))[0])

        return await self._jobs.write_alone(job, job)

    async def note_audit_key(self, public: str) -> None:
        """Store the public part of a key that signs checkpoints, with the time of its first use."""
        params = {"key": f"audit_key/{public}", "value": str(self.now())}
        await self._jobs.write(lambda tx: tx.change(own.ADD_META, params))

    async def _require_known_keys(self, tx: Transaction) -> None:
        """Raise ``KeyringBegun`` if another process has stored data keys since they were read."""
        stored = await read_keys(tx, _TABLES_OF_KEYS)
        if {one.id for one in stored.data_keys} != self.known_keys:
            raise KeyringBegun(stored)

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
    """How a database is opened: ``migrate`` None migrates an empty one only."""

    migrate: bool | None = None
    notify: Callable[[Event], None] = lambda _: None
    verify: Verify = _verify_nothing


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
        try:
            async with pool.acquire() as connection:
                stored = await read_keys_of(connection)
                await opening.verify(stored)
                schema = await _prepare(connection, opening)
                await clock.sync(connection)
        except DatabaseRefused as error:
            raise DatabaseRefused(f"{target}: {error.message}", fix=error.fix) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise refusal(target, error) from None
        mark_us = await jobs.write(lambda tx: read_mark(reader, tx))
        instance = await jobs.write(_find_instance)
        service = SharedTime(clock, mark_us)
        store = PostgresStore(jobs, service, schema, instance)
        store.known_keys = frozenset(one.id for one in stored.data_keys)
        async with asyncio.TaskGroup() as group:
            upkeep = group.create_task(_keep_up(pool, jobs, clock, service))
            try:
                yield store
            finally:
                upkeep.cancel()


async def read_keys_of(connection: Session) -> StoredKeys:
    """Return what a database says about its keys; changes nothing."""
    if not await read_schema(connection):
        return StoredKeys()
    return await read_keys(PostgresTransaction(connection, writes=False), _TABLES_OF_KEYS)


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
    return schema


async def _find_instance(tx: Transaction) -> str:
    """Return the installation's id; the first process draws it."""
    await tx.change(own.ADD_META, {"key": INSTANCE, "value": os.urandom(8).hex()})
    row = await tx.row(sql.GET_META, {"key": INSTANCE})
    if row is None or not _ID.fullmatch(str(row[0])):
        raise DatabaseRefused("meta.instance is not a valid installation id", fix="restore a backup")
    return str(row[0])


async def _keep_up(
    pool: Pool[Record], jobs: PostgresJobs, clock: DatabaseClock, service: SharedTime
) -> NoReturn:
    """Follow the database's clock and store the service's time; while the database fails, probe it."""
    while True:
        with suppress(StoreUnavailable, OSError, TimeoutError):
            await jobs.write(lambda tx: tx.change(own.MARK, {"key": MARK, "value": mark_of(service.now())}))
            async with pool.acquire() as connection:
                await clock.sync(connection)
            service.follow()
        await asyncio.sleep(PROBE_SECONDS if jobs.failure else SYNC_SECONDS)
