"""The SQLite store: one file below the data directory, one process, one connection."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.clock import Clock, ServiceClock, read_mark
from lessor_server.adapters.sql.columns import Reader
from lessor_server.adapters.sql.config import StoredConfig
from lessor_server.adapters.sql.kept import Kept
from lessor_server.adapters.sql.keyring import StoredKeyring
from lessor_server.adapters.sql.leases import StoredLeases
from lessor_server.adapters.sql.logins import StoredLogins
from lessor_server.adapters.sql.rotations import StoredRotations
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sql.upkeep import StoredUpkeep
from lessor_server.adapters.sqlite import backups
from lessor_server.adapters.sqlite.connection import Batches, SqliteJobs, connect
from lessor_server.adapters.sqlite.lock import directory_lock
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, migrate
from lessor_server.adapters.sqlite.stored_keys import read_stored_keys
from lessor_server.adapters.sqlite.transaction import SqliteTransaction, run_job
from lessor_server.adapters.sqlite.upgrade_copy import write_before_upgrade
from lessor_server.domain.events import DatabaseCopied, Event
from lessor_server.domain.lease import Intent, Lease
from lessor_server.domain.root import StoredRoot
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import StoredContext

FILE = "lessor.db"
INSTANCE = "instance"
MAX_KEPT_LEASES: Final = 4_096
_ID: Final = re.compile("[0-9a-f]{16}")
"""An id of an installation."""


class SqliteStore(StoredConfig, StoredUpkeep, StoredLeases, StoredRotations, StoredKeyring, StoredLogins):
    """The whole store."""

    def __init__(
        self, batches: Batches, clock: ServiceClock, folder: Path, schema: int, instance: str
    ) -> None:
        """Serve a database below ``folder`` that was opened and migrated to ``schema``."""
        super().__init__(SqliteJobs(batches, batches.raw.transaction), clock, schema, instance)
        self._batches = batches
        self._folder = folder
        self._contexts = Kept[tuple[str, str], StoredContext]()
        self._roots = Kept[str, StoredRoot]()
        self._leases = Kept[str, Lease](MAX_KEPT_LEASES)
        """Leases that nothing can have changed since they were stored or read, until they are due."""

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        """Read mount, root and role, or return what was read of them since the configuration changed."""
        version = self._batches.config_version
        if not request_id and (kept := self._contexts.get(version, (mount, role))) is not None:
            return kept
        context = await super().load_issue_context(mount, role, owner, request_id)
        if not request_id:
            self._contexts.put(version, (mount, role), context)
        return context

    async def get_root(self, mount: str) -> StoredRoot | None:
        """Read a root, or return what was read of it since the configuration changed."""
        version = self._batches.config_version
        if (kept := self._roots.get(version, mount)) is not None:
            return kept
        root = await super().get_root(mount)
        if root is not None:
            self._roots.put(version, mount, root)
        return root

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        """Store an intent, and keep it."""
        version = self._batches.lease_version  # before the job: what is queued after it may change the row
        lease = await super().begin(intent, span)
        self._leases.put(version, lease.id, lease)
        return lease

    async def get(self, lease_id: str, *, salvage: bool = False) -> Lease | None:
        """Read a lease, or return what was read of it."""
        if (kept := self._kept(lease_id)) is not None:
            return kept
        version, quiet = self._batches.lease_version, self._batches.quiet_version
        lease = await super().get(lease_id, salvage=salvage)
        was_quiet = quiet is not None and quiet == self._batches.quiet_version
        if lease is not None and not salvage and was_quiet:
            self._leases.put(version, lease.id, lease)
        return lease

    async def get_owner(self, lease_id: str) -> str | None:
        """Read whose lease it is, or return what was read of it."""
        kept = self._kept(lease_id)
        return await super().get_owner(lease_id) if kept is None else kept.owner

    async def is_current(self, lease: Lease) -> bool:
        """Return whether the row has the lease's generation; it is read if a job may have changed it."""
        kept = self._kept(lease.id)
        return (kept is not None and kept.generation == lease.generation) or await super().is_current(lease)

    def _kept(self, lease_id: str) -> Lease | None:
        kept = self._leases.get(self._batches.lease_version, lease_id)
        return kept if kept is not None and self.now() < kept.due_us else None

    async def write(self, before: Lease, after: Lease) -> bool:
        """Write a step of a lease."""
        self._leases.drop(before.id)
        return await super().write(before, after)

    async def renew(self, lease_id: str, renew: Callable[[Lease, int], Lease]) -> Lease | None:
        """Renew a lease."""
        self._leases.drop(lease_id)
        return await super().renew(lease_id, renew)

    async def revoke(self, lease_id: str) -> Lease | None:
        """Revoke a lease, whose intent may still be in the queue."""
        self._batches.lease_version += 1
        return await super().revoke(lease_id)

    async def backup(self, path: str) -> tuple[str, int]:
        """Write a consistent copy below the data directory; raises as the port says."""
        name = path or f"backup-{self.now()}.db"
        return await self._batches.read(
            lambda connection: backups.write(connection, self._folder, name, self._macs)
        )


Verify = Callable[[StoredKeys], Awaitable[RowSeals | None]]
"""Verifies the sealing key by what the database says; what it returns authenticates rows."""


async def _verify_nothing(_: StoredKeys) -> None:
    """Open a database whatever its key."""


@asynccontextmanager
async def open_store(
    folder: Path,
    clock: Clock,
    notify: Callable[[Event], None] = lambda _: None,
    verify: Verify = _verify_nothing,
) -> AsyncIterator[SqliteStore]:
    """Lock ``folder``, open its database, migrate it, and serve it while the block runs.

    ``verify`` is awaited before anything is changed; its exceptions are raised. ``notify`` is called when the
    store cannot write, when it can again, for unreadable rows, and for a copy before an upgrade.

    Raises:
        DirectoryLocked: Another server has the folder. DatabaseUnusable: The file cannot be used.
        CopyBeforeUpgradeFailed: No copy of the database of an earlier version can be written.
    """
    file = folder / FILE
    with directory_lock(folder):
        _require_plain(file)
        _require_private(file)
        seals = await verify(await asyncio.to_thread(read_stored_keys, file))
        reader = Reader()
        prepare = partial(_prepare, reader, file, seals)
        async with connect(file, prepare, reader, notify) as (batches, prepared):
            service, tx = ServiceClock(clock, prepared.mark_us), batches.raw.transaction
            batches.raw.before_commit = lambda: run_job(service.mark(tx))
            batches.raw.after_rollback = service.unmark
            reader.macs = RowMacs()
            if prepared.copy:
                notify(DatabaseCopied(prepared.copy, prepared.schema))
            yield SqliteStore(batches, service, folder, prepared.schema, prepared.instance)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A migrated database: its schema, the installation's id, the high-water mark, and the copy's name."""

    schema: int
    instance: str
    mark_us: int
    copy: str


def _files(file: Path) -> tuple[Path, ...]:
    """Return the files of a database: its own and those that SQLite adds."""
    return (file, *(file.with_name(f"{FILE}-{end}") for end in ("wal", "shm", "journal")))


def _require_plain(file: Path) -> None:
    """Raise ``DatabaseUnusable`` if a file is not a plain file: on a pipe SQLite would wait."""
    for path in _files(file):
        if os.path.lexists(path) and not path.is_file():
            raise DatabaseUnusable(f"{path} is not a regular file")


def _require_private(file: Path) -> None:
    """Remove other users' permission to read the database: it names roles, leases and their owners.

    SQLite gives what it makes beside the database the mode of the database.
    """
    for path in _files(file):
        if path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _prepare(reader: Reader, file: Path, seals: RowSeals | None, connection: sqlite3.Connection) -> _Prepared:
    """Copy the database if an earlier version wrote it, and migrate it.

    Raises:
        DatabaseUnusable: The ``file``, which the error names, is not one that this version may use.
    """
    copies: list[str] = []

    def copy(first: int) -> None:
        macs = RowMacs()
        macs.seals = seals
        copies.append(write_before_upgrade(connection, file, first, macs))

    try:
        schema = migrate(connection, copy)
        _recount(reader, connection)
        mark_us = run_job(read_mark(reader, SqliteTransaction(connection)))
        return _Prepared(schema, _instance(reader, connection), mark_us, "".join(copies))
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"{file}: {error.message}") from error
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(f"{file}: the database cannot be read: {error}") from error


def _recount(reader: Reader, connection: sqlite3.Connection) -> None:
    """Count leases again if a stored count is invalid: limits and lists depend on it."""
    bad = connection.execute(sql.BAD_COUNTS).fetchall()
    for row in bad:
        reader.note(
            "lease_counts", rows.COUNTS.key(row), "is not a valid count; the leases were counted again"
        )
    if bad:
        connection.execute(sql.RECOUNT_LEASES)


def _instance(reader: Reader, connection: sqlite3.Connection) -> str:
    """Return the installation's id: as stored, else from the folder of any lease's user, else a new one."""
    row = connection.execute(sql.GET_META, {"key": INSTANCE}).fetchone()
    if row is not None and isinstance(row[0], str) and _ID.fullmatch(row[0]):
        return row[0]
    if row is not None:
        reader.note("meta", INSTANCE, "is not a valid installation id")
    paths = (path for (path,) in connection.execute(sql.SOME_USER_PATHS) if isinstance(path, str))
    found = (path.split("/")[2] for path in paths)
    instance = next((one for one in found if _ID.fullmatch(one)), os.urandom(8).hex())
    connection.execute(sql.PUT_META, {"key": INSTANCE, "value": instance})
    return instance
