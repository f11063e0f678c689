"""Which rows were written by Lessor: MACs of rows that grant rights, checked when they are read to grant.

The MACs of a mount's rows are in one table, and one further MAC covers all of them: a row that was put back
from a copy differs from the MAC of its place, and the two together differ from the further one. The further
MACs of all mounts and the MAC of the expiry hold are the rows of the installation, which one last MAC covers:
so a mount with all of its rows, or a hold, that was put back differs too. A lease has its MAC in its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final
from weakref import WeakKeyDictionary

from lessor_server.adapters.sql import keyring_statements as sql
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.statements import LEASE_COLUMNS, PUT_META
from lessor_server.adapters.sql.transaction import Transaction
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


@dataclass(slots=True)
class _Cache:
    """What is known of mounts while ``cover`` is the MAC of the installation, which each change replaces."""

    cover: object = None
    mounts: dict[str, _Known] = field(default_factory=dict)


class RowMacs:
    """Computes and checks the MACs of rows; without ``seals`` nothing is checked, and MACs are empty."""

    def __init__(self, *, shared: bool = False) -> None:
        """Check the rows of a database that only this process changes, or, if ``shared``, others too."""
        self._shared = shared
        self._cache = _Cache()
        self._caches: WeakKeyDictionary[Transaction, _Cache] = WeakKeyDictionary()
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
        return self.seals is None or self.seals.is_authentic("leases", _of_row(row), row[-1])

    def is_newest(self, row: Row) -> bool:
        """Return whether the MAC that a row ends with is of the data key in use."""
        return self.seals is None or self.seals.is_newest(row[-1])

    # --- login tokens -----------------------------------------------------------------------------------

    def mac_of_login_row(self, row: Row) -> bytes:
        """Return the MAC that a row with ``LOGIN_COLUMNS`` should have."""
        return self.seals.mac("login_tokens", row[:-1]) if self.seals else b""

    def is_login_authentic(self, row: Row) -> bool:
        """Return whether a row with ``LOGIN_COLUMNS`` is as it was written."""
        return self.seals is None or self.seals.is_authentic("login_tokens", row[:-1], row[-1])

    # --- rows of mounts ---------------------------------------------------------------------------------

    async def is_authentic(self, tx: Transaction, row: Placed) -> bool:
        """Return whether a row is the one that was last written to its place."""
        if self.seals is None:
            return True
        cache = await self._cache_of(tx)
        known = cache.mounts.get(row.mount) or await self._read(tx, cache, row.mount)
        if known.rows.get(row.place) == row.content:
            return True
        mac = known.macs.get(row.place)
        if mac is None or not self.seals.is_authentic(row.place, row.content, mac):
            return False
        known.rows[row.place] = row.content
        return True

    async def _cache_of(self, tx: Transaction) -> _Cache:
        """Return what is known in the state of the database that a transaction sees."""
        if not self._shared:
            return self._cache
        if not tx.is_durable:
            return _Cache()
        cache = self._caches.get(tx)
        if cache is None:
            row = await tx.row(sql.ROW_MAC, {"mount": INSTALLATION, "place": _ALL})
            cover = row[0] if row else None
            if self._cache.cover != cover:
                self._cache = _Cache(cover)
            cache = self._caches[tx] = self._cache
        return cache

    async def put(self, tx: Transaction, row: Placed) -> None:
        """Store the MAC of a row that Lessor writes; it becomes durable with the row."""
        await self.put_all(tx, row.mount, {row.place: row.content})

    async def put_all(
        self, tx: Transaction, mount: str, contents: Mapping[str, Content], gone: Iterable[str] = ()
    ) -> None:
        """Store the MACs of rows of one mount, and delete those of places that are ``gone``.

        If the mount's MACs were changed by others, the one that covers all stays wrong.
        """
        if self.seals is None:
            return
        self._forget(mount)
        macs, authentic = await self._authentic(tx, mount)
        new = {place: self.seals.mac(place, content) for place, content in contents.items()}
        dropped = [_at(mount, place) for place in gone if macs.pop(place, None) is not None]
        await tx.change_many(sql.DROP_ROW_MAC, dropped)
        await tx.change_many(
            sql.PUT_ROW_MAC, [_at(mount, place) | {"mac": mac} for place, mac in new.items()]
        )
        if authentic:
            await self._put_cover(tx, mount, macs | new)

    async def clear(self, tx: Transaction) -> None:
        """Drop all MACs of rows, and store the one that covers none."""
        self._cache = _Cache()
        await tx.change(sql.DROP_ALL_ROW_MACS, {})
        await self._put_cover(tx, INSTALLATION, {})

    async def _put_cover(self, tx: Transaction, mount: str, macs: Mapping[str, bytes]) -> None:
        """Store the MAC that covers those of a mount, which is under that of the installation."""
        assert self.seals is not None
        self._forget(INSTALLATION)
        cover = self.seals.mac(_cover_place(mount), _covered(macs))
        if mount == INSTALLATION:
            await tx.change(sql.PUT_ROW_MAC, _at(INSTALLATION, _ALL) | {"mac": cover})
            return
        above, _ = await self._authentic(tx, INSTALLATION)
        place = _cover_place(mount)
        if macs:
            above[place] = cover
            await tx.change(sql.PUT_ROW_MAC, _at(INSTALLATION, place) | {"mac": cover})
        else:
            above.pop(place, None)
            await tx.change(sql.DROP_ROW_MAC, _at(INSTALLATION, place))
        await self._put_cover(tx, INSTALLATION, above)

    async def put_hold(self, tx: Transaction, why: str) -> None:
        """Store why expiry is held, with its MAC."""
        await tx.change(PUT_META, {"key": HELD, "value": why})
        await self.put(tx, place_hold(why))

    async def is_hold_authentic(self, tx: Transaction, row: Row | None) -> bool:
        """Return whether the row of the expiry hold, or its absence, is as Lessor left it."""
        if row is not None:
            return await self.is_authentic(tx, place_hold(row[0]))
        return self.seals is None or _HOLD not in (await self._macs_of_installation(tx))

    async def is_held(self, tx: Transaction) -> bool:
        """Return whether expiry is held by what the MACs say, which do not tell why."""
        mac = (await self._macs_of_installation(tx)).get(_HOLD)
        nothing = place_hold("")
        return bool(self.seals and mac and not self.seals.is_authentic(nothing.place, nothing.content, mac))

    async def _macs_of_installation(self, tx: Transaction) -> Mapping[str, bytes]:
        return (await self._read(tx, await self._cache_of(tx), INSTALLATION)).macs

    async def is_whole(self, tx: Transaction) -> bool:
        """Return whether the MAC is right that covers the rows of the installation."""
        return self.seals is None or (await self._authentic(tx, INSTALLATION))[1]

    async def drop(self, tx: Transaction, mount: str, *places: str) -> None:
        """Delete the MACs of rows that Lessor deletes."""
        await self.put_all(tx, mount, {}, places)

    async def drop_mount(self, tx: Transaction, mount: str) -> None:
        """Delete the MACs of a removed mount, and the one that covers them."""
        self._forget(mount)
        await tx.change(sql.DROP_ROW_MACS, {"mount": mount})
        await self.drop(tx, INSTALLATION, _cover_place(mount))

    def reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return a value as it is sealed under the data key in use; an empty one stays empty."""
        return self.seals.reseal(sealed, context, version) if self.seals and sealed else sealed

    def unlock(self, seals: RowSeals) -> None:
        """Check rows with ``seals`` from now on."""
        self.seals = seals
        self._cache = _Cache()

    def _forget(self, mount: str) -> None:
        self._cache.mounts.pop(mount, None)

    async def _read(self, tx: Transaction, cache: _Cache, mount: str) -> _Known:
        macs, authentic = await self._authentic(tx, mount)
        known = _Known(macs if authentic else {})
        if tx.is_durable:  # else it may be rolled back
            cache.mounts[mount] = known
        return known

    async def _authentic(self, tx: Transaction, mount: str) -> tuple[dict[str, bytes], bool]:
        """Return the stored MACs of a mount's rows, and whether the one that covers them is right.

        It is right only if that of the installation is, too.
        """
        assert self.seals is not None
        stored = await tx.rows(sql.ROW_MACS, {"mount": mount})
        macs = {place: mac for place, mac in stored if isinstance(place, str) and isinstance(mac, bytes)}
        right = len(stored) == len(macs)
        if mount == INSTALLATION:
            cover = macs.pop(_ALL, None)
        else:
            above, is_above_right = await self._authentic(tx, INSTALLATION)
            cover = above.get(_cover_place(mount))
            if cover is None and not stored:
                return {}, is_above_right
            right = right and is_above_right
        return macs, right and self.seals.is_authentic(_cover_place(mount), _covered(macs), cover)


def _at(mount: str, place: str) -> dict[str, str | int | float | bytes | None]:
    return {"mount": mount, "place": place}


def _covered(macs: Mapping[str, bytes]) -> list[object]:
    """Return what the MAC of a mount covers."""
    return [part for place in sorted(macs) for part in (place, macs[place].hex())]
