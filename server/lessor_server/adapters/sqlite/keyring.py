"""Data keys on SQLite, and the steps that seal and authenticate rows under another one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from lessor_server.adapters.sqlite import keyring_statements as keyring_sql
from lessor_server.adapters.sqlite import rows
from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.base import SqlitePart
from lessor_server.adapters.sqlite.columns import Row
from lessor_server.adapters.sqlite.row_macs import (
    HELD,
    INSTALLATION,
    Content,
    Placed,
    place_hold,
    place_mount,
    place_role,
    place_root,
    place_rotation,
)
from lessor_server.adapters.sqlite.stored_keys import LOST_DATA_KEYS, SEALING_KEY, is_sealed, read_data_keys
from lessor_server.domain.errors.sealing import SealingKeyMismatch
from lessor_server.domain.root import root_context
from lessor_server.domain.rotation import key_context
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import WrappedKey

LEASES_PER_PAGE: Final = 1000
ALL_MOUNTS: Final = "of all mounts"
"""Names the MAC that covers those of all mounts, in warnings."""
UNREADABLE_HOLD: Final = "STORED_HOLD_UNREADABLE"
"""The reason of a hold whose stored reason cannot be read; ResumeExpiry ends it."""


class SqliteKeyring(SqlitePart):
    """The rows of data keys, and MACs of all rows."""

    async def list_data_keys(self) -> list[WrappedKey]:
        return await self._batches.read(_data_keys)

    async def begin_keyring(self, key: WrappedKey, seals: RowSeals) -> int:
        def job(connection: sqlite3.Connection) -> int:
            connection.execute(keyring_sql.DROP_DATA_KEYS)
            connection.execute(sql.DROP_META, {"key": SEALING_KEY})
            connection.execute(keyring_sql.ADD_DATA_KEY, _params(key))
            self._macs.unlock(seals)
            values = self._seal_mounts_as_they_are(connection)
            last: str | None = ""
            while last is not None:
                page = self._leases_after(connection, last, LEASES_PER_PAGE)
                self._seal_leases(connection, page)
                last = _last_id(page)
            return values

        try:
            return await self._batches.write(job)
        except BaseException:
            self._macs.seals = None
            raise

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on, and undo a change of the expiry hold by others.

        With ``accept`` the rows of mounts are taken as they are, if it is not known which are the newest.
        """

        def job(connection: sqlite3.Connection) -> None:
            self._macs.unlock(seals)
            if not self._macs.is_whole():
                self._reader.note_tampered("row_macs", ALL_MOUNTS)
                if accept:
                    self._seal_mounts_as_they_are(connection)
            if not self._macs.is_hold_authentic(connection.execute(sql.GET_META, {"key": HELD}).fetchone()):
                self._reader.note_tampered("meta", HELD)
                self._macs.put_hold(connection, UNREADABLE_HOLD if self._macs.is_held() else "")

        await self._batches.write(job)

    async def add_data_key(self, key: WrappedKey) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(keyring_sql.NONE_ACTIVE)
            connection.execute(keyring_sql.ADD_DATA_KEY, _params(key))

        await self._batches.write(job)

    async def rewrap_data_keys(self, keys: Sequence[WrappedKey]) -> None:
        """Replace how all data keys are wrapped, in one transaction."""

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(keyring_sql.REWRAP_DATA_KEY, map(_params, keys))

        await self._batches.write(job)

    async def reseal_mount(self, after: str) -> tuple[str, int] | None:
        def job(connection: sqlite3.Connection) -> tuple[str, int] | None:
            mount = _next_mount(connection, after)
            if not after:
                self._seal_installation(connection)
            return None if mount is None else (mount, self._seal_mount(connection, mount))

        return await self._batches.write(job)

    async def reseal_leases(self, after: str, limit: int) -> str | None:
        def job(connection: sqlite3.Connection) -> str | None:
            page = self._leases_after(connection, after, limit)
            stale = (row for row in page if not self._macs.is_lease_newest(row))
            self._seal_leases(connection, [row for row in stale if self._macs.is_lease_authentic(row)])
            return _last_id(page)

        return await self._batches.write(job)

    async def drop_data_keys(self, active_id: str) -> None:
        await self._batches.write(
            lambda connection: connection.execute(keyring_sql.DROP_OTHER_DATA_KEYS, {"id": active_id})
        )

    def _seal_installation(self, connection: sqlite3.Connection) -> None:
        held = connection.execute(sql.GET_META, {"key": HELD}).fetchone()
        found = [] if held is None else [place_hold(held[0])]
        authentic = {one.place: one.content for one in found if self._macs.is_authentic(one)}
        self._macs.put_all(connection, INSTALLATION, authentic)

    def _seal_mounts_as_they_are(self, connection: sqlite3.Connection) -> int:
        """Seal the values of all mounts, and take their rows and the hold for authentic."""
        self._macs.clear(connection)
        held = connection.execute(sql.GET_META, {"key": HELD}).fetchone()
        if held is not None:
            self._macs.put(connection, place_hold(held[0]))
        values, mount = 0, _next_mount(connection, "")
        while mount is not None:
            values += self._seal_mount(connection, mount, as_they_are=True)
            mount = _next_mount(connection, mount)
        return values

    def _seal_mount(self, connection: sqlite3.Connection, mount: str, *, as_they_are: bool = False) -> int:
        """Seal the values of a mount's rows, and store the MACs of those that are authentic.

        With ``as_they_are`` all rows are taken for authentic. Returns how many values were sealed.
        """
        params = {"mount": mount, "name": mount}
        found: list[Placed] = [
            *map(place_mount, connection.execute(sql.GET_MOUNT, params).fetchall()),
            *map(place_root, connection.execute(sql.GET_ROOT, params).fetchall()),
            *map(place_role, connection.execute(sql.ROLES_OF, params).fetchall()),
            *map(place_rotation, connection.execute(sql.ROTATIONS_OF, params).fetchall()),
        ]
        authentic = {one.place for one in found if as_they_are or self._macs.is_authentic(one)}
        values = self._seal_root(connection, mount) + self._seal_rotations(connection, mount)
        contents: dict[str, Content] = {}
        for place, statement in (
            (place_mount, sql.GET_MOUNT),
            (place_root, sql.GET_ROOT),
            (place_role, sql.ROLES_OF),
            (place_rotation, sql.ROTATIONS_OF),
        ):
            for row in connection.execute(statement, params).fetchall():
                placed = place(row)
                if placed.place in authentic:
                    contents[placed.place] = placed.content
        self._macs.put_all(connection, mount, contents)
        return values

    def _seal_root(self, connection: sqlite3.Connection, mount: str) -> int:
        row = connection.execute(sql.GET_ROOT, {"mount": mount}).fetchone()
        if row is None or not isinstance(row[1], bytes):
            return 0
        sealed = self._macs.reseal(row[1], root_context(mount), str(row[3]))
        if sealed == row[1]:
            return 0
        connection.execute(keyring_sql.SET_ROOT_SEALED, (sealed, mount))
        return 1

    def _seal_rotations(self, connection: sqlite3.Connection, mount: str) -> int:
        values = 0
        for row in connection.execute(sql.ROTATIONS_OF, {"mount": mount}).fetchall():
            subject, *_, sealed, fresh_sealed, body = row
            if not (isinstance(sealed, bytes) and isinstance(fresh_sealed, bytes)):
                continue
            current, fresh = _keys_of(body)
            place = key_context(subject)
            new = (
                self._macs.reseal(sealed, place, current),
                self._macs.reseal(fresh_sealed, place, fresh or current),
            )
            values += (new[0] != sealed) + (new[1] != fresh_sealed)
            if new != (sealed, fresh_sealed):
                connection.execute(keyring_sql.SET_ROTATION_SEALED, (*new, subject))
        return values

    def _leases_after(self, connection: sqlite3.Connection, after: str, limit: int) -> list[Row]:
        params = {"after": after, "limit": limit}
        return connection.execute(keyring_sql.ANY_LEASES_AFTER, params).fetchall()

    def _seal_leases(self, connection: sqlite3.Connection, page: Sequence[Row]) -> None:
        macs = [(self._macs.mac_of_lease_row(row), row[0]) for row in page]
        connection.executemany(keyring_sql.SET_LEASE_MAC, macs)


def _data_keys(connection: sqlite3.Connection) -> list[WrappedKey]:
    found = read_data_keys(connection)
    if not found and is_sealed(connection):
        raise SealingKeyMismatch(LOST_DATA_KEYS)
    return found


def _params(key: WrappedKey) -> rows.Params:
    return {
        "id": key.id,
        "wrapped": key.wrapped,
        "wrapped_by": key.wrapped_by,
        "active": key.is_active,
        "complete": key.complete,
    }


def _next_mount(connection: sqlite3.Connection, after: str) -> str | None:
    """Return the next name of a mount, of which any row may be left; None after the last."""
    found = connection.execute(keyring_sql.SEALED_MOUNTS, {"after": after})
    return next((name for (name,) in found if isinstance(name, str)), None)


def _last_id(page: Sequence[Row]) -> str | None:
    """Return the last id that is a text: another can't be compared with."""
    return next((row[0] for row in reversed(page) if isinstance(row[0], str)), None)


def _keys_of(body: str) -> tuple[str, str]:
    """Return the ids of the current and the fresh key in a rotation's body, as far as it can be read."""
    try:
        plain = json.loads(body)
        return str(plain.get("current", "")), str(plain.get("fresh", ""))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "", ""
