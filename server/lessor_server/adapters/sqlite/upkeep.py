"""What keeps the store and the account in step: prefixes, sweeps, the clock, backups."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.clock import MARK, ServiceClock
from lessor_server.adapters.sqlite.connection import Batches
from lessor_server.domain.errors import AlreadyExists, Invalid, Violation
from lessor_server.domain.lease import CREATE_GRACE, STUCK_AFTER, TOMBSTONE_LIFE, Lease, Orphan
from lessor_server.domain.mount import Mount
from lessor_server.domain.names import shown
from lessor_server.domain.role import CredentialType
from lessor_server.engine.stored import OpenPrefix, Progress, Range

HELD = "held"
RESTORED = "STORE_ROLLED_BACK"


class SqliteUpkeep:
    """Ranges of leases, tombstones, and the store as a whole."""

    def __init__(self, batches: Batches, clock: ServiceClock, folder: Path) -> None:
        """Run jobs in ``batches``; backups go below ``folder``."""
        self._batches = batches
        self._clock = clock
        self._folder = folder

    # --- prefixes ---------------------------------------------------------------------------------------

    async def open_prefix(self, ids: Range) -> tuple[OpenPrefix, int]:
        """Put a range up for revocation; return it, and how many leases it takes in."""

        def job(connection: sqlite3.Connection) -> tuple[OpenPrefix, int]:
            prefix = OpenPrefix(ids, self._clock.now())
            return prefix, _opened(connection, prefix)

        return await self._batches.write(job)

    async def disable(self, mount: str) -> tuple[Mount, int] | None:
        """Let a mount take no new lease and put all of its leases up for revocation."""

        def job(connection: sqlite3.Connection) -> tuple[Mount, int] | None:
            row = connection.execute(sql.DISABLE_MOUNT, {"name": mount}).fetchone()
            prefix = OpenPrefix(Range.of_mount(mount), self._clock.now())
            return (rows.mount(row), _opened(connection, prefix)) if row else None

        return await self._batches.write(job)

    async def prefixes(self) -> list[OpenPrefix]:
        """Return the ranges whose leases have not all been put up yet."""

        def job(connection: sqlite3.Connection) -> list[OpenPrefix]:
            found = connection.execute(sql.PREFIXES).fetchall()
            return [OpenPrefix(Range(low, high), cutoff_us) for low, high, cutoff_us in found]

        return await self._batches.read(job)

    async def put_up(self, prefix: OpenPrefix, after: str, limit: int) -> list[str]:
        """Have the next of a range's leases tried at once; return their ids, in order."""
        return sorted(await self._ids(sql.PUT_UP, _prefix(prefix) | {"after": after, "limit": limit}))

    async def close_prefix(self, prefix: OpenPrefix) -> None:
        """Forget a range."""
        await self._batches.write(lambda connection: connection.execute(sql.CLOSE_PREFIX, _prefix(prefix)))

    async def progress(self, prefix: OpenPrefix) -> Progress:
        """Count what a range still holds."""
        alive, failed, gone = await self._batches.read(
            lambda connection: connection.execute(sql.PROGRESS, _prefix(prefix)).fetchone()
        )
        return Progress(alive, failed, gone)

    async def abandon(self, ids: Range, limit: int, *, live: bool) -> list[str]:
        """Turn some leases of a range to ABANDONED, ``live`` ones too; return their ids."""
        params: rows.Params = {"low": ids.low, "high": ids.high, "limit": limit, "live": live}
        return await self._ids(sql.ABANDON, params)

    async def _ids(self, statement: str, params: rows.Params) -> list[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            return [row[0] for row in connection.execute(statement, params | {"now": self._clock.now()})]

        return await self._batches.write(job)

    # --- sweeps -----------------------------------------------------------------------------------------

    async def known(self, user_names: Sequence[str]) -> dict[str, Lease]:
        """Return the leases of those users that have one."""

        def job(connection: sqlite3.Connection) -> dict[str, Lease]:
            found = connection.execute(sql.KNOWN, {"names": json.dumps(list(user_names))}).fetchall()
            return {lease.footprint.user_name: lease for lease in map(rows.lease, found)}

        return await self._batches.read(job)

    async def adopt(self, orphan: Orphan) -> bool:
        """Store a REVOKING row, due at once, for a user that had none."""
        params: rows.Params = {
            "id": orphan.id,
            "mount": orphan.mount,
            "role": orphan.role,
            "credential_type": CredentialType.IAM_USER.value,
            "account": orphan.footprint.account,
            "user_name": orphan.footprint.user_name,
            "user_path": orphan.footprint.user_path,
            "now": self._clock.now(),
        }
        return await self._batches.write(
            lambda connection: connection.execute(sql.ADOPT, params).rowcount == 1
        )

    async def bury(self, account: str, listed_us: int) -> int:
        """Drop tombstones that a complete listing did not show, and old enough."""
        params: rows.Params = {
            "account": account,
            "listed_us": listed_us,
            "old_us": self._clock.now() - rows.us(TOMBSTONE_LIFE),
            "grace_us": rows.us(CREATE_GRACE),
        }
        return await self._batches.write(lambda connection: connection.execute(sql.BURY, params).rowcount)

    async def bury_sessions(self) -> int:
        """Drop the tombstones of sessions that are long over."""
        params = {"old_us": self._clock.now() - rows.us(TOMBSTONE_LIFE)}
        return await self._batches.write(
            lambda connection: connection.execute(sql.BURY_SESSIONS, params).rowcount
        )

    async def remove_disabled(self) -> list[str]:
        """Remove the disabling mounts that have no live lease left, with their roots and roles."""
        removals = (sql.REMOVE_ROTATIONS, sql.REMOVE_ROLES, sql.REMOVE_ROOT, sql.REMOVE_MOUNT)

        def job(connection: sqlite3.Connection) -> list[str]:
            found = connection.execute(sql.DISABLED, {"stuck": STUCK_AFTER}).fetchall()
            names: list[str] = [row[0] for row in found]
            for name in names:
                for statement in removals:
                    connection.execute(statement, {"mount": name})
            return names

        return await self._batches.write(job)

    # --- the clock, and the store as a whole ---------------------------------------------------------------

    async def drift_us(self) -> int:
        """Return how far the machine's wall clock is ahead of the service's time."""
        return self._clock.drift_us()

    async def first_start(self) -> bool:
        """Tell whether the store had never been used before this start."""
        return self._clock.first_start

    async def held(self) -> str:
        """Return why expiries are held across starts, or an empty text."""
        row = await self._batches.read(
            lambda connection: connection.execute(sql.GET_META, {"key": HELD}).fetchone()
        )
        return str(row[0]) if row else ""

    async def hold(self, why: str) -> None:
        """Keep the hold, or end it with an empty text."""
        params: rows.Params = {"key": HELD, "value": why}
        await self._batches.write(lambda connection: connection.execute(sql.PUT_META, params))

    async def lower_clock(self) -> None:
        """Take the wall clock for the service's time."""

        def job(connection: sqlite3.Connection) -> None:
            now = self._clock.lower()
            connection.execute(sql.BEGUN_BY_NOW, {"now": now})
            connection.execute(sql.PUT_META, {"key": MARK, "value": str(now)})

        await self._batches.write(job)

    async def backup(self, path: str) -> tuple[str, int]:
        """Write a consistent, durable copy below the data directory; return its path and size in bytes."""
        folder = self._folder.resolve()
        target = (folder / (path or f"backup-{self._clock.now()}.db")).resolve()
        if target == folder or not target.is_relative_to(folder) or _is_ours(target, folder):
            mend = "give a new file's path below the data directory"
            raise Invalid((Violation("path", f"{shown(path)} lies elsewhere, or is the server's own", mend),))
        size = await self._batches.read(lambda connection: _copy(connection, target))
        return str(target.relative_to(folder)), size


def _is_ours(target: Path, folder: Path) -> bool:
    """Tell whether a file is, or may come to be, one of the server's own."""
    return target.parent == folder and target.name.startswith(("lessor.", "root-token", "sealing-key"))


def _copy(connection: sqlite3.Connection, target: Path) -> int:
    """Copy one state of the whole database to a file that does not exist yet; return its size in bytes."""
    if target.exists():
        raise AlreadyExists("file", target.name)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(
            (Violation("path", f"cannot be made: {error.strerror}", "name another file"),)
        ) from None
    connection.execute("VACUUM INTO ?", (str(target),))
    target.chmod(0o600)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        # A copy knows nothing of what was issued, renewed or revoked after it: whoever starts on it is told.
        copy.execute(sql.PUT_META, {"key": HELD, "value": RESTORED})
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return target.stat().st_size


def _opened(connection: sqlite3.Connection, prefix: OpenPrefix) -> int:
    """Write the promise down; return how many leases it takes in."""
    connection.execute(sql.OPEN_PREFIX, _prefix(prefix))
    taken: int = connection.execute(sql.COUNT_RANGE, _prefix(prefix)).fetchone()[0]
    return taken


def _prefix(prefix: OpenPrefix) -> rows.Params:
    return {"low": prefix.ids.low, "high": prefix.ids.high, "cutoff_us": prefix.cutoff_us}
