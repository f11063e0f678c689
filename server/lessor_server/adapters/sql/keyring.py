"""Data keys, and the steps that seal and authenticate rows under another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from lessor_server.adapters.sql import keyring_statements as keyring_sql
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.login_statements import DROP_LOGIN_TOKENS
from lessor_server.adapters.sql.row_macs import (
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
from lessor_server.adapters.sql.stored_keys import LOST_DATA_KEYS, SEALING_KEY, is_sealed, read_data_keys
from lessor_server.adapters.sql.transaction import REPEAT, Transaction
from lessor_server.domain.errors.sealing import SealingKeyMismatch
from lessor_server.domain.root import root_context
from lessor_server.domain.rotation import key_context
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import WrappedKey

LEASES_PER_PAGE: Final = 1000
ALL_MOUNTS: Final = "of all mounts"
"""Names the MAC that covers those of all mounts, in warnings."""
HASH_KEY: Final = "audit_hash_key"
"""The key of ``meta`` for the sealed key of the audit's hashes, which servers of one database share."""
HASH_KEY_CONTEXT: Final = f"meta/{HASH_KEY}"
HASH_KEY_VERSION: Final = "1"
UNREADABLE_HOLD: Final = "STORED_HOLD_UNREADABLE"
"""The reason of a hold whose stored reason cannot be read; ResumeExpiry ends it."""


class StoredKeyring(StorePart):
    """The rows of data keys, and MACs of all rows."""

    async def list_data_keys(self) -> list[WrappedKey]:
        return await self._jobs.read(_read_wrapped_keys)

    async def begin_keyring(self, key: WrappedKey, seals: RowSeals) -> int:
        async def job(tx: Transaction) -> int:
            await self._require_known_keys(tx)
            await tx.change(keyring_sql.DROP_DATA_KEYS, {})
            await tx.change(sql.DROP_META, {"key": SEALING_KEY})
            await tx.change(keyring_sql.ADD_DATA_KEY, _params(key))
            self._macs.unlock(seals)
            await tx.change(DROP_LOGIN_TOKENS, {})  # nothing shows who wrote them; callers log in again
            values = await self._seal_mounts_as_they_are(tx)
            last: str | None = ""
            while last is not None:
                page = await self._read_leases_after(tx, last, LEASES_PER_PAGE)
                await self._seal_leases(tx, page)
                last = _last_id(page)
            return values

        async def again(tx: Transaction, values: int) -> int:
            return values if await _is_stored(tx, key) else await job(tx)

        try:
            return await self._jobs.write_alone(job, again)
        except BaseException:
            self._macs.seals = None
            raise

    async def _require_known_keys(self, tx: Transaction) -> None:
        """Raise ``KeysChanged`` if another process has stored or dropped data keys since they were read."""

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on, and undo a change of the expiry hold by others.

        With ``accept`` the rows of mounts are taken as they are, if it is not known which are the newest.
        """

        async def job(tx: Transaction) -> None:
            await self._require_known_keys(tx)
            self._macs.unlock(seals)
            if not await self._macs.is_whole(tx):
                self._reader.note_tampered("row_macs", ALL_MOUNTS)
                if accept:
                    await self._seal_mounts_as_they_are(tx)
            if not await self._macs.is_hold_authentic(tx, await tx.row(sql.GET_META, {"key": HELD})):
                self._reader.note_tampered("meta", HELD)
                await self._macs.put_hold(tx, UNREADABLE_HOLD if await self._macs.is_held(tx) else "")

        await self._jobs.write_alone(job, REPEAT)

    async def add_data_key(self, key: WrappedKey) -> None:
        async def job(tx: Transaction) -> None:
            await tx.change(keyring_sql.NONE_ACTIVE, {})
            await tx.change(keyring_sql.ADD_DATA_KEY, _params(key))

        async def again(tx: Transaction, _: None) -> None:
            if not await _is_stored(tx, key):
                await job(tx)

        await self._jobs.write_alone(job, again)

    async def rewrap_data_keys(self, keys: Sequence[WrappedKey]) -> None:
        """Replace how all data keys are wrapped, in one transaction."""

        async def job(tx: Transaction) -> None:
            await tx.change_many(keyring_sql.REWRAP_DATA_KEY, [_params(key) for key in keys])

        await self._jobs.write_alone(job, REPEAT)

    async def reseal_mount(self, after: str) -> tuple[str, int] | None:
        async def job(tx: Transaction) -> tuple[str, int] | None:
            mount = await _find_next_mount(tx, after)
            if not after:
                await self._seal_installation(tx)
            return None if mount is None else (mount, await self._seal_mount(tx, mount))

        async def again(tx: Transaction, sealed: tuple[str, int] | None) -> tuple[str, int] | None:
            repeated = await job(tx)
            is_same = repeated and sealed and repeated[0] == sealed[0]
            return sealed if is_same else repeated

        return await self._jobs.write_alone(job, again)

    async def reseal_leases(self, after: str, limit: int) -> str | None:
        async def job(tx: Transaction) -> str | None:
            page = await self._read_leases_after(tx, after, limit)
            stale = (row for row in page if not self._macs.is_newest(row))
            await self._seal_leases(tx, [row for row in stale if self._macs.is_lease_authentic(row)])
            return _last_id(page)

        return await self._jobs.write_alone(job, REPEAT)

    async def drop_data_keys(self, active_id: str) -> None:
        await self._jobs.write_alone(
            lambda tx: tx.change(keyring_sql.DROP_OTHER_DATA_KEYS, {"id": active_id}), REPEAT
        )

    async def _seal_installation(self, tx: Transaction) -> None:
        held = await tx.row(sql.GET_META, {"key": HELD})
        found = [] if held is None else [place_hold(held[0])]
        authentic = {one.place: one.content for one in found if await self._macs.is_authentic(tx, one)}
        await self._macs.put_all(tx, INSTALLATION, authentic)
        hash_key = await tx.row(sql.GET_META, {"key": HASH_KEY})
        if hash_key is not None:
            sealed = self._macs.reseal(bytes.fromhex(hash_key[0]), HASH_KEY_CONTEXT, HASH_KEY_VERSION)
            await tx.change(sql.PUT_META, {"key": HASH_KEY, "value": sealed.hex()})

    async def _seal_mounts_as_they_are(self, tx: Transaction) -> int:
        """Seal the values of all mounts, and take their rows and the hold for authentic."""
        await self._macs.clear(tx)
        held = await tx.row(sql.GET_META, {"key": HELD})
        if held is not None:
            await self._macs.put(tx, place_hold(held[0]))
        values, mount = 0, await _find_next_mount(tx, "")
        while mount is not None:
            values += await self._seal_mount(tx, mount, as_they_are=True)
            mount = await _find_next_mount(tx, mount)
        return values

    async def _seal_mount(self, tx: Transaction, mount: str, *, as_they_are: bool = False) -> int:
        """Seal the values of a mount's rows, and store the MACs of those that are authentic.

        With ``as_they_are`` all rows are taken for authentic. Returns how many values were sealed.
        """
        params: rows.Params = {"mount": mount, "name": mount}
        found: list[Placed] = [
            *map(place_mount, await tx.rows(sql.GET_MOUNT, params)),
            *map(place_root, await tx.rows(sql.GET_ROOT, params)),
            *map(place_role, await tx.rows(sql.ROLES_OF, params)),
            *map(place_rotation, await tx.rows(sql.ROTATIONS_OF, params)),
        ]
        authentic = {one.place for one in found if as_they_are or await self._macs.is_authentic(tx, one)}
        values = await self._seal_root(tx, mount) + await self._seal_rotations(tx, mount)
        contents: dict[str, Content] = {}
        for place, statement in (
            (place_mount, sql.GET_MOUNT),
            (place_root, sql.GET_ROOT),
            (place_role, sql.ROLES_OF),
            (place_rotation, sql.ROTATIONS_OF),
        ):
            for row in await tx.rows(statement, params):
                placed = place(row)
                if placed.place in authentic:
                    contents[placed.place] = placed.content
        await self._macs.put_all(tx, mount, contents)
        return values

    async def _seal_root(self, tx: Transaction, mount: str) -> int:
        row = await tx.row(sql.GET_ROOT, {"mount": mount})
        if row is None or not isinstance(row[1], bytes):
            return 0
        sealed = self._macs.reseal(row[1], root_context(mount), str(row[3]))
        if sealed == row[1]:
            return 0
        await tx.change(keyring_sql.SET_ROOT_SEALED, {"sealed": sealed, "mount": mount})
        return 1

    async def _seal_rotations(self, tx: Transaction, mount: str) -> int:
        values = 0
        for row in await tx.rows(sql.ROTATIONS_OF, {"mount": mount}):
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
                given: rows.Params = {"sealed": new[0], "fresh_sealed": new[1], "subject": subject}
                await tx.change(keyring_sql.SET_ROTATION_SEALED, given)
        return values

    async def _read_leases_after(self, tx: Transaction, after: str, limit: int) -> Sequence[Row]:
        params: rows.Params = {"after": after, "limit": limit}
        return await tx.rows(keyring_sql.ANY_LEASES_AFTER, params)

    async def _seal_leases(self, tx: Transaction, page: Sequence[Row]) -> None:
        macs: list[rows.Params] = [{"mac": self._macs.mac_of_lease_row(row), "id": row[0]} for row in page]
        await tx.change_many(keyring_sql.SET_LEASE_MAC, macs)


async def _read_wrapped_keys(tx: Transaction) -> list[WrappedKey]:
    found = await read_data_keys(tx)
    if not found and await is_sealed(tx):
        raise SealingKeyMismatch(LOST_DATA_KEYS)
    return found


async def _is_stored(tx: Transaction, key: WrappedKey) -> bool:
    return any(one.id == key.id for one in await read_data_keys(tx))


def _params(key: WrappedKey) -> rows.Params:
    return {
        "id": key.id,
        "wrapped": key.wrapped,
        "wrapped_by": key.wrapped_by,
        "active": key.is_active,
        "complete": key.complete,
    }


async def _find_next_mount(tx: Transaction, after: str) -> str | None:
    """Return the next name of a mount, of which any row may be left; None after the last."""
    found = await tx.rows(keyring_sql.SEALED_MOUNTS, {"after": after})
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
