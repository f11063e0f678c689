"""The SQLite store: one file below the data directory, one process, one connection."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.clock import Clock, ServiceClock, stored_mark
from lessor_server.adapters.sqlite.columns import Reader
from lessor_server.adapters.sqlite.connection import Batches, connect
from lessor_server.adapters.sqlite.keyring import SqliteKeyring
from lessor_server.adapters.sqlite.leases import SqliteLeases
from lessor_server.adapters.sqlite.lock import directory_lock
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, migrate
from lessor_server.adapters.sqlite.rotations import SqliteRotations
from lessor_server.adapters.sqlite.row_macs import RowMacs, place_mount, place_role, place_root, role_place
from lessor_server.adapters.sqlite.stored_keys import StoredKeys, read_stored_keys
from lessor_server.adapters.sqlite.upgrade_copy import write_before_upgrade
from lessor_server.adapters.sqlite.upkeep import SqliteUpkeep
from lessor_server.domain.events import DatabaseCopied, Event
from lessor_server.domain.lease import Lease
from lessor_server.domain.lease_id import is_name
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot, root_context
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import StoredContext

FILE = "lessor.db"
INSTANCE = "instance"
_ID: Final = re.compile("[0-9a-f]{16}")
"""An id of an installation."""


MAX_KEPT_CONTEXTS: Final = 1_024


class _KeptContexts:
    """The mounts, roots and roles of recent issues, until anything but leases is written.

    No other process writes: the database is locked.
    """

    def __init__(self) -> None:
        self._version = 0
        self._by_role: dict[tuple[str, str], StoredContext] = {}

    def get(self, version: int, mount: str, role: str) -> StoredContext | None:
        """Return what was kept at this version of the configuration."""
        return self._by_role.get((mount, role)) if version == self._version else None

    def put(self, version: int, mount: str, role: str, context: StoredContext) -> None:
        """Keep what was read at this version of the configuration."""
        if version != self._version or len(self._by_role) >= MAX_KEPT_CONTEXTS:
            self._version = version
            self._by_role.clear()
        self._by_role[mount, role] = context


class SqliteStore(SqliteUpkeep, SqliteLeases, SqliteRotations, SqliteKeyring):
    """The whole store: this class has the configuration, and inherits leases, upkeep, rotations and keys."""

    def __init__(
        self, batches: Batches, clock: ServiceClock, folder: Path, schema: int, instance: str
    ) -> None:
        """Serve a database below ``folder`` that was opened and migrated to ``schema``."""
        super().__init__(batches, clock, folder, schema, instance)
        self._contexts = _KeptContexts()

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        version = self._batches.config_version
        if not request_id and (kept := self._contexts.get(version, mount, role)) is not None:
            return kept

        def job(connection: sqlite3.Connection) -> StoredContext:
            params: rows.Params = {"name": mount, "mount": mount, "role": role}
            found = connection.execute(sql.GET_MOUNT, params).fetchone()
            root = connection.execute(sql.GET_ROOT, params).fetchone()
            named = connection.execute(sql.GET_ROLE, {"mount": mount, "name": role}).fetchone()
            return StoredContext(
                mount=self._reader.one(rows.MOUNTS, found),
                root=self._reader.one(rows.ROOTS, root),
                role=self._reader.one(rows.ROLES, named),
                earlier=self._earlier(connection, params | {"owner": owner, "request_id": request_id}),
            )

        context = await self._batches.read(job)
        if not request_id and version == self._batches.config_version:
            self._contexts.put(version, mount, role, context)
        return context

    def _earlier(self, connection: sqlite3.Connection, params: rows.Params) -> Lease | None:
        """Return the lease that the same request id has, if any."""
        if not params["request_id"]:
            return None
        return self._reader.one(rows.LEASES, connection.execute(sql.BY_REQUEST, params).fetchone())

    # --- mounts -----------------------------------------------------------------------------------------

    async def get_mount(self, name: str) -> Mount | None:
        return await self._find(rows.MOUNTS, sql.GET_MOUNT, {"name": name})

    async def put_mount(self, before: Mount | None, after: Mount) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            params = rows.mount_params(after)
            statement = sql.ADD_MOUNT
            if before is not None:
                statement = sql.PUT_MOUNT
                row = connection.execute(sql.GET_MOUNT, params).fetchone()
                if self._reader.one(rows.MOUNTS, row) != before:
                    return False
            written = connection.execute(statement, params).rowcount == 1
            if written:
                self._macs.put(connection, place_mount(connection.execute(sql.GET_MOUNT, params).fetchone()))
            return written

        return await self._batches.write(job)

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        return await self._page(rows.MOUNTS, sql.LIST_MOUNTS, {"after": after}, limit)

    async def mount_names(self, after: str, limit: int) -> list[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            found = (row[0] for row in connection.execute(sql.MOUNT_NAMES, {"after": after}))
            return list(islice((name for name in found if isinstance(name, str) and is_name(name)), limit))

        return await self._batches.read(job)

    # --- roots ------------------------------------------------------------------------------------------

    async def get_root(self, mount: str) -> StoredRoot | None:
        def job(connection: sqlite3.Connection) -> StoredRoot | None:
            row = connection.execute(sql.GET_ROOT, {"mount": mount}).fetchone()
            return self._reader.one(rows.ROOTS, row, grants=False)  # revocations need it

        return await self._batches.read(job)

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        rows.require_storable(root)
        params: rows.Params = {
            "mount": root.mount,
            "sealed": self._macs.reseal(root.sealed, root_context(root.mount), str(root.version)),
            "account": root.account,
            "version": root.version,
            "etag": root.etag,
            "expect": expect_version,
        }
        statement = sql.PUT_ROOT if expect_version else sql.ADD_ROOT
        return await self._write_sealed(statement, params, sql.GET_ROOT, place_root)

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        params: rows.Params = {"mount": mount, "version": version, "account": account}

        def job(connection: sqlite3.Connection) -> bool:
            self._reader.one(rows.ROOTS, connection.execute(sql.GET_ROOT, params).fetchone())
            written = connection.execute(sql.BIND_ACCOUNT, params).rowcount == 1
            if written:
                self._macs.put(connection, place_root(connection.execute(sql.GET_ROOT, params).fetchone()))
            return written

        return await self._batches.write(job)

    # --- roles ------------------------------------------------------------------------------------------

    async def get_role(self, mount: str, name: str) -> Role | None:
        return await self._find(rows.ROLES, sql.GET_ROLE, {"mount": mount, "name": name})

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        statement = sql.ADD_ROLE if expect_etag is None else sql.PUT_ROLE
        params = rows.role_params(role) | {"expect": expect_etag}
        return await self._write_sealed(statement, params, sql.GET_ROLE, place_role)

    async def delete_role(self, mount: str, name: str) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            deleted = connection.execute(sql.DELETE_ROLE, {"mount": mount, "name": name}).rowcount == 1
            if deleted:
                self._macs.drop(connection, mount, role_place(mount, name))
            return deleted

        return await self._batches.write(job)

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        return await self._page(rows.ROLES, sql.LIST_ROLES, {"mount": mount, "after": after}, limit)


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
            service = ServiceClock(clock, prepared.mark_us)
            batches.raw.before_commit = service.mark
            batches.raw.after_rollback = service.unmark
            reader.macs = RowMacs(batches.raw)
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
        macs = RowMacs(connection)
        macs.seals = seals
        copies.append(write_before_upgrade(connection, file, first, macs))

    try:
        schema = migrate(connection, copy)
        _recount(reader, connection)
        mark_us = stored_mark(reader, connection)
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
