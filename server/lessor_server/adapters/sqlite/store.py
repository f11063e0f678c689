"""The SQLite store: one file below the data directory, one process, one connection."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.clock import Clock, ServiceClock, stored_mark
from lessor_server.adapters.sqlite.connection import Batches, connected
from lessor_server.adapters.sqlite.leases import SqliteLeases
from lessor_server.adapters.sqlite.lock import directory_lock
from lessor_server.adapters.sqlite.migrate import prepare
from lessor_server.adapters.sqlite.rotations import SqliteRotations
from lessor_server.adapters.sqlite.upkeep import SqliteUpkeep
from lessor_server.domain.errors import AlreadyExists
from lessor_server.domain.lease import Lease
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot
from lessor_server.engine.stored import Grounds, Repeated

FILE = "lessor.db"
INSTANCE = "instance"
SEALING_KEY = "sealing_key"


class SqliteStore(SqliteLeases, SqliteUpkeep, SqliteRotations):
    """The whole store; leases, upkeep and rotations are inherited, configuration stands here."""

    def __init__(
        self, batches: Batches, clock: ServiceClock, folder: Path, schema: int, instance: str
    ) -> None:
        """Serve a database below ``folder`` that was opened and migrated to ``schema``."""
        SqliteLeases.__init__(self, batches, clock)
        SqliteUpkeep.__init__(self, batches, clock, folder)
        SqliteRotations.__init__(self, batches, clock)
        self._schema = schema
        self._instance = instance

    async def instance(self) -> str:
        """Return this installation's id."""
        return self._instance

    async def schema_version(self) -> int:
        """Return the number of the last migration applied."""
        return self._schema

    async def sealing_key_id(self) -> str:
        """Return the id of the key that secrets are sealed under, empty where none was noted so far."""
        row = await self._one(sql.GET_META, {"key": SEALING_KEY})
        return str(row[0]) if row else ""

    async def put_sealing_key_id(self, key_id: str) -> None:
        """Note the key that secrets are sealed under from now on."""
        await self._wrote(sql.PUT_META, {"key": SEALING_KEY, "value": key_id})

    async def sealed_values(self) -> list[bytes]:
        """Return all that is sealed."""
        values = [row[0] for row in await self._all(sql.SEALED, {})]
        return [value for value in values if isinstance(value, bytes) and value]

    async def grounds(self, mount: str, role: str, repeated: Repeated | None = None) -> Grounds:
        """Read mount, root and role at one instant."""

        def job(connection: sqlite3.Connection) -> Grounds:
            params: rows.Params = {"name": mount, "mount": mount, "role": role}
            found = connection.execute(sql.GET_MOUNT, params).fetchone()
            root = connection.execute(sql.GET_ROOT, params).fetchone()
            named = connection.execute(sql.GET_ROLE, {"mount": mount, "name": role}).fetchone()
            return Grounds(
                mount=rows.mount(found) if found else None,
                root=rows.root(root) if root else None,
                role=rows.role(named) if named else None,
                earlier=_earlier(connection, params, repeated),
            )

        return await self._batches.read(job)

    # --- mounts -----------------------------------------------------------------------------------------

    async def add_mount(self, mount: Mount) -> None:
        """Store a new mount, or raise ``AlreadyExists``."""
        if not await self._wrote(sql.ADD_MOUNT, rows.mount_params(mount)):
            raise AlreadyExists("mount", mount.name)

    async def get_mount(self, name: str) -> Mount | None:
        """Return one mount."""
        row = await self._one(sql.GET_MOUNT, {"name": name})
        return rows.mount(row) if row else None

    async def put_mount(self, before: Mount, after: Mount) -> bool:
        """Replace a mount; False where it is no longer as ``before``."""

        def job(connection: sqlite3.Connection) -> bool:
            row = connection.execute(sql.GET_MOUNT, {"name": before.name}).fetchone()
            if row is None or rows.mount(row) != before:
                return False
            return connection.execute(sql.PUT_MOUNT, rows.mount_params(after)).rowcount == 1

        return await self._batches.write(job)

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        """Return mounts by name."""
        found = await self._all(sql.LIST_MOUNTS, {"after": after, "limit": limit})
        return [rows.mount(row) for row in found]

    # --- roots ------------------------------------------------------------------------------------------

    async def get_root(self, mount: str) -> StoredRoot | None:
        """Return the mount's sealed root."""
        row = await self._one(sql.GET_ROOT, {"mount": mount})
        return rows.root(row) if row else None

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        """Store a root if the one there has ``expect_version`` (0: none)."""
        params: rows.Params = {
            "mount": root.mount,
            "sealed": root.sealed,
            "account": root.account,
            "version": root.version,
            "etag": root.etag,
            "expect": expect_version,
        }
        return await self._wrote(sql.PUT_ROOT if expect_version else sql.ADD_ROOT, params)

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        """Keep the account of a root of this version that had none."""
        return await self._wrote(sql.BIND_ACCOUNT, {"mount": mount, "version": version, "account": account})

    # --- roles ------------------------------------------------------------------------------------------

    async def get_role(self, mount: str, name: str) -> Role | None:
        """Return one role."""
        row = await self._one(sql.GET_ROLE, {"mount": mount, "name": name})
        return rows.role(row) if row else None

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        """Store a role if the one there has ``expect_etag`` (None: there is none)."""
        statement = sql.ADD_ROLE if expect_etag is None else sql.PUT_ROLE
        return await self._wrote(statement, rows.role_params(role) | {"expect": expect_etag})

    async def delete_role(self, mount: str, name: str) -> bool:
        """Delete a role; False where there was none."""
        return await self._wrote(sql.DELETE_ROLE, {"mount": mount, "name": name})

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        """Return roles of a mount by name."""
        found = await self._all(sql.LIST_ROLES, {"mount": mount, "after": after, "limit": limit})
        return [rows.role(row) for row in found]

    async def _one(self, statement: str, params: rows.Params) -> sqlite3.Row | None:
        def job(connection: sqlite3.Connection) -> sqlite3.Row | None:
            row: sqlite3.Row | None = connection.execute(statement, params).fetchone()
            return row

        return await self._batches.read(job)

    async def _all(self, statement: str, params: rows.Params) -> list[sqlite3.Row]:
        return await self._batches.read(lambda connection: connection.execute(statement, params).fetchall())

    async def _wrote(self, statement: str, params: rows.Params) -> bool:
        return await self._batches.write(
            lambda connection: connection.execute(statement, params).rowcount == 1
        )


@asynccontextmanager
async def open_store(folder: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    """Lock ``folder``, open its database, migrate it, and serve it while the block runs.

    Raises:
        DirectoryLocked: Another server has the folder. DatabaseUnusable: The file cannot be used.
    """
    with directory_lock(folder):
        _require_private(folder / FILE)
        async with connected(folder / FILE, _prepare) as (batches, (schema, instance, mark_us)):
            service = ServiceClock(clock, mark_us)
            batches.raw.before_commit = service.mark
            yield SqliteStore(batches, service, folder, schema, instance)


def _require_private(file: Path) -> None:
    """Take the right to read a database from other users: it names roles, leases and their owners.

    SQLite gives what it makes beside the database the mode of the database.
    """
    for path in (file, file.with_name(f"{FILE}-wal"), file.with_name(f"{FILE}-shm")):
        if path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _earlier(connection: sqlite3.Connection, params: rows.Params, repeated: Repeated | None) -> Lease | None:
    """Return the lease that the same request made before, if there is one."""
    if repeated is None:
        return None
    asked: rows.Params = {"owner": repeated.owner, "request_id": repeated.request_id}
    row = connection.execute(sql.BY_REQUEST, params | asked).fetchone()
    return rows.lease(row) if row else None


def _prepare(connection: sqlite3.Connection) -> tuple[int, str, int]:
    """Migrate; return the schema version, the installation's id (drawn once), and the high-water mark."""
    schema = prepare(connection)
    row = connection.execute(sql.GET_META, {"key": INSTANCE}).fetchone()
    if row is None:
        connection.execute(sql.PUT_META, {"key": INSTANCE, "value": os.urandom(8).hex()})
        row = connection.execute(sql.GET_META, {"key": INSTANCE}).fetchone()
    return schema, row[0], stored_mark(connection)
