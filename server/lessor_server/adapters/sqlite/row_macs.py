"""Which rows were written by Lessor: MACs of rows that grant rights, checked when they are read to grant.

The MACs of a mount's rows are in one table, and one further MAC covers all of them: a row that was put back
from a copy differs from the MAC of its place, and the two together differ from the further one. The further
MACs of all mounts and the MAC of the expiry hold are the rows of the installation, which one last MAC covers:
so a mount with all of its rows, or a hold, that was put back differs too. A lease has its MAC in its row. All
methods run on the connection's thread, except ``lease_mac``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from lessor_server.adapters.sqlite import keyring_statements as sql
from lessor_server.adapters.sqlite.columns import Row
from lessor_server.adapters.sqlite.statements import LEASE_COLUMNS, PUT_META
from lessor_server.domain.root import root_context
from lessor_server.domain.rotation import key_context
from lessor_server.engine.sealing_ports import RowSeals

INSTALLATION: Final = ""
"""Stands for a mount's name: the rows of the installation as a whole."""
HELD: Final = "held"
"""The key of ``meta`` for why expiry is held."""
_HOLD: Final = f"meta/{HELD}"
_ALL: Final = ""
"""The place of the MAC that covers all others of the installation."""
LEASE_COVERED: Final = (
    "id", "mount", "role", "credential_type", "owner", "account", "user_name", "user_path", "inline_policy",
    "policy_arns", "groups", "max_ttl_us", "max_expires_us", "request_id", "request_digest", "policy_rule",
)  # fmt: skip
"""What the MAC of a lease covers: who can write its other columns grants at most what a renewal would."""
_NAMES: Final = LEASE_COLUMNS.split(", ")
_of_params = itemgetter(*LEASE_COVERED)
_of_row = itemgetter(*map(_NAMES.index, LEASE_COVERED))
_MAC: Final = _NAMES.index("mac")

Content = Sequence[object]


@dataclass(frozen=True, slots=True)
class Placed:
    """A row's mount, its place, and the content that its MAC covers."""

    mount: str
    place: str
    content: Content


def place_mount(row: Row) -> Placed:
    """Return the place of a row with ``MOUNT_COLUMNS``."""
    return Placed(row[0], f"mounts/{row[0]}", tuple(row))


def place_root(row: Row) -> Placed:
    """Return the place of a row of ``roots``."""
    return Placed(row[0], root_context(row[0]), tuple(row))


def place_role(row: Row) -> Placed:
    """Return the place of a row of ``roles``."""
    return Placed(row[0], role_place(row[0], row[1]), tuple(row))


def role_place(mount: object, name: object) -> str:
    """Return the place of a role."""
    return f"roles/{mount}/{name}"


def place_rotation(row: Row) -> Placed:
    """Return the place of a row with ``ROTATION_COLUMNS``: a claim, and when it is due, grant nothing."""
    subject, phase, _, _, _, _, sealed, fresh_sealed, body = row
    mount = str(subject).partition("/")[0]
    return Placed(mount, key_context(subject), (subject, phase, sealed, fresh_sealed, body))


def place_hold(why: object) -> Placed:
    """Return the place of the expiry hold."""
    return Placed(INSTALLATION, _HOLD, (why,))


def _cover_place(mount: str) -> str:
    """Return the place of the MAC that covers all others of a mount, among the rows of the installation."""
    return f"row_macs/{mount}"


@dataclass(slots=True)
class _Known:
    """The authentic MACs of one mount, and the rows that were found authentic; both from one commit."""

    macs: Mapping[str, bytes]
    rows: dict[str, Content] = field(default_factory=dict)


class RowMacs:
    """Computes and checks the MACs of rows; without ``seals`` nothing is checked, and MACs are empty."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read MACs on ``connection``."""
        self._connection = connection
        self._known: dict[str, _Known] = {}
        self.seals: RowSeals | None = None

    # --- leases -----------------------------------------------------------------------------------------

    def lease_mac(self, params: Mapping[str, object]) -> bytes:
        """Return the MAC of a lease from the parameters that store it."""
        return self.seals.mac("leases", _of_params(params)) if self.seals else b""

    def mac_of_lease_row(self, row: Row) -> bytes:
        """Return the MAC that a row with ``LEASE_COLUMNS`` should have."""
        return self.seals.mac("leases", _of_row(row)) if self.seals else b""

    def is_lease_authentic(self, row: Row) -> bool:
        """Return whether a row with ``LEASE_COLUMNS`` is as it was written."""
        return self.seals is None or self.seals.is_authentic("leases", _of_row(row), row[_MAC])

    def is_lease_newest(self, row: Row) -> bool:
        """Return whether the MAC of a lease is of the data key in use."""
        return self.seals is None or self.seals.is_newest(row[_MAC])

    # --- rows of mounts ---------------------------------------------------------------------------------

    def is_authentic(self, row: Placed) -> bool:
        """Return whether a row is the one that was last written to its place."""
        if self.seals is None:
            return True
        known = self._known.get(row.mount) or self._read(row.mount)
        if known.rows.get(row.place) == row.content:
            return True
        mac = known.macs.get(row.place)
        if mac is None or not self.seals.is_authentic(row.place, row.content, mac):
            return False
        known.rows[row.place] = row.content
        return True

    def put(self, connection: sqlite3.Connection, row: Placed) -> None:
        """Store the MAC of a row that Lessor writes; it becomes durable with the row."""
        self.put_all(connection, row.mount, {row.place: row.content})

    def put_all(
        self,
        connection: sqlite3.Connection,
        mount: str,
        contents: Mapping[str, Content],
        gone: Iterable[str] = (),
    ) -> None:
        """Store the MACs of rows of one mount, and delete those of places that are ``gone``.

        If the mount's MACs were changed by others, the one that covers all stays wrong.
        """
        if self.seals is None:
            return
        self._known.pop(mount, None)
        macs, authentic = self._authentic(connection, mount)
        new = {place: self.seals.mac(place, content) for place, content in contents.items()}
        dropped = [(mount, place) for place in gone if macs.pop(place, None) is not None]
        connection.executemany(sql.DROP_ROW_MAC, dropped)
        connection.executemany(sql.PUT_ROW_MAC, [(mount, place, mac) for place, mac in new.items()])
        if authentic:
            self._put_cover(connection, mount, macs | new)

    def clear(self, connection: sqlite3.Connection) -> None:
        """Drop all MACs of rows, and store the one that covers none."""
        self._known.clear()
        connection.execute(sql.DROP_ALL_ROW_MACS)
        self._put_cover(connection, INSTALLATION, {})

    def _put_cover(self, connection: sqlite3.Connection, mount: str, macs: Mapping[str, bytes]) -> None:
        """Store the MAC that covers those of a mount, which is under that of the installation."""
        assert self.seals is not None
        self._known.pop(INSTALLATION, None)
        cover = self.seals.mac(_cover_place(mount), _covered(macs))
        if mount == INSTALLATION:
            connection.execute(sql.PUT_ROW_MAC, (INSTALLATION, _ALL, cover))
            return
        above, _ = self._authentic(connection, INSTALLATION)
        place = _cover_place(mount)
        if macs:
            above[place] = cover
            connection.execute(sql.PUT_ROW_MAC, (INSTALLATION, place, cover))
        else:
            above.pop(place, None)
            connection.execute(sql.DROP_ROW_MAC, (INSTALLATION, place))
        self._put_cover(connection, INSTALLATION, above)

    def put_hold(self, connection: sqlite3.Connection, why: str) -> None:
        """Store why expiry is held, with its MAC."""
        connection.execute(PUT_META, {"key": HELD, "value": why})
        self.put(connection, place_hold(why))

    def is_hold_authentic(self, row: Row | None) -> bool:
        """Return whether the row of the expiry hold, or its absence, is as Lessor left it."""
        if row is not None:
            return self.is_authentic(place_hold(row[0]))
        return self.seals is None or _HOLD not in self._read(INSTALLATION).macs

    def is_held(self) -> bool:
        """Return whether expiry is held by what the MACs say, which do not tell why."""
        mac = self._read(INSTALLATION).macs.get(_HOLD)
        nothing = place_hold("")
        return bool(self.seals and mac and not self.seals.is_authentic(nothing.place, nothing.content, mac))

    def is_whole(self) -> bool:
        """Return whether the MAC is right that covers the rows of the installation."""
        return self.seals is None or self._authentic(self._connection, INSTALLATION)[1]

    def drop(self, connection: sqlite3.Connection, mount: str, *places: str) -> None:
        """Delete the MACs of rows that Lessor deletes."""
        self.put_all(connection, mount, {}, places)

    def drop_mount(self, connection: sqlite3.Connection, mount: str) -> None:
        """Delete the MACs of a removed mount, and the one that covers them."""
        self._known.pop(mount, None)
        connection.execute(sql.DROP_ROW_MACS, (mount,))
        self.drop(connection, INSTALLATION, _cover_place(mount))

    def reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return a value as it is sealed under the data key in use; an empty one stays empty."""
        return self.seals.reseal(sealed, context, version) if self.seals and sealed else sealed

    def unlock(self, seals: RowSeals) -> None:
        """Check rows with ``seals`` from now on."""
        self.seals = seals
        self._known.clear()

    def _read(self, mount: str) -> _Known:
        macs, authentic = self._authentic(self._connection, mount)
        known = _Known(macs if authentic else {})
        if not self._connection.in_transaction:  # else it may be rolled back
            self._known[mount] = known
        return known

    def _authentic(self, connection: sqlite3.Connection, mount: str) -> tuple[dict[str, bytes], bool]:
        """Return the stored MACs of a mount's rows, and whether the one that covers them is right.

        It is right only if that of the installation is, too.
        """
        assert self.seals is not None
        stored = connection.execute(sql.ROW_MACS, (mount,)).fetchall()
        macs = {place: mac for place, mac in stored if isinstance(place, str) and isinstance(mac, bytes)}
        right = len(stored) == len(macs)
        if mount == INSTALLATION:
            cover = macs.pop(_ALL, None)
        else:
            above, is_above_right = self._authentic(connection, INSTALLATION)
            cover = above.get(_cover_place(mount))
            if cover is None and not stored:
                return {}, is_above_right
            right = right and is_above_right
        return macs, right and self.seals.is_authentic(_cover_place(mount), _covered(macs), cover)


def _covered(macs: Mapping[str, bytes]) -> list[object]:
    """Return what the MAC of a mount covers."""
    return [part for place in sorted(macs) for part in (place, macs[place].hex())]
