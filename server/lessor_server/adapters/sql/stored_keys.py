"""What a database says about its keys, which a start verifies before it changes anything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from lessor_server.adapters.sql import keyring_statements as sql
from lessor_server.adapters.sql.statements import GET_META
from lessor_server.adapters.sql.transaction import Transaction, require_row
from lessor_server.engine.store_types import WrappedKey

SEALING_KEY: Final = "sealing_key"
"""The key of ``meta`` under which versions without data keys stored the id of the sealing key."""
_KEY_ID_LENGTH: Final = 16
LOST_DATA_KEYS: Final = "the database has lost its data keys, and its rows are sealed under them"


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What a database says about its keys.

    ``is_new``: there is no database yet. ``is_sealed``: it has what only a version with data keys writes.
    ``sealing_key_id`` and ``sealed_values`` are those of a version without data keys.
    """

    is_new: bool = True
    data_keys: tuple[WrappedKey, ...] = ()
    is_sealed: bool = False
    sealing_key_id: str = ""
    sealed_values: tuple[bytes, ...] = ()

    @property
    def key_ids(self) -> frozenset[str]:
        """Return the ids of the data keys."""
        return frozenset([one.id for one in self.data_keys])


class KeysChanged(Exception):
    """Another process has stored the first data key, or rotated it, since this one read the data keys."""

    def __init__(self, stored: StoredKeys) -> None:
        """Keep what the database says now."""
        super().__init__("another process has changed the data keys")
        self.stored = stored


async def read_keys(tx: Transaction, tables: Collection[str]) -> StoredKeys:
    """Return what a database with these tables says about its keys."""
    noted = await tx.row(GET_META, {"key": SEALING_KEY})
    known = noted is not None and isinstance(noted[0], str) and len(noted[0]) == _KEY_ID_LENGTH
    data_keys = await read_data_keys(tx) if "sealing_keys" in tables else []
    return StoredKeys(
        is_new=False,
        data_keys=tuple(data_keys),
        is_sealed=bool(data_keys) or ("sealing_keys" in tables and await is_sealed(tx)),
        sealing_key_id=noted[0] if noted is not None and known else "",
        sealed_values=tuple(await _read_sealed_values(tx, tables)),
    )


async def read_data_keys(tx: Transaction) -> list[WrappedKey]:
    """Return the stored data keys."""
    return [
        WrappedKey(str(key_id), _bytes(wrapped), str(wrapped_by), active == 1, _bytes(complete))
        for key_id, wrapped, wrapped_by, active, complete in await tx.rows(sql.DATA_KEYS, {})
    ]


async def is_sealed(tx: Transaction) -> bool:
    """Return whether there is what only a version with data keys writes."""
    return bool((await require_row(tx, sql.IS_SEALED, {}))[0])


async def _read_sealed_values(tx: Transaction, tables: Collection[str]) -> list[bytes]:
    queries = [query for table, query in sql.SEALED.items() if table in tables]
    found = [value for query in queries for row in await tx.rows(query, {}) for value in row]
    return [value for value in found if isinstance(value, bytes) and value]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
