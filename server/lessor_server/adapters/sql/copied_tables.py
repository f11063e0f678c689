"""The tables of a store as a copy to another database has them: columns, and the keys that order the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.statements import LEASE_COLUMNS, MOUNT_COLUMNS, ROTATION_COLUMNS


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table; its first ``keys`` columns are the primary key."""

    name: str
    columns: tuple[str, ...]
    keys: int = 1

    @property
    def order(self) -> str:
        """Return the columns of the key, for an ORDER BY."""
        return ", ".join(self.columns[: self.keys])


def _table(name: str, columns: str, keys: int = 1) -> CopiedTable:
    return CopiedTable(name, tuple(columns.split(", ")), keys)


LEASES: Final = _table("leases", f"{LEASE_COLUMNS}, claimed_by, gone_us")
COPIED_TABLES: Final = (
    _table("sealing_keys", "id, wrapped, wrapped_by, active, complete"),
    _table("mounts", MOUNT_COLUMNS),
    _table("roots", "mount, sealed, account, version, etag"),
    _table("roles", "mount, name, etag, body", 2),
    _table("rotations", f"{ROTATION_COLUMNS}, claimed"),
    _table("prefixes", "low, cutoff_us, owner, high", 3),
    _table("row_macs", "mount, place, mac", 2),
    LEASES,
)
"""Counts are not copied: the database counts the leases that it gets. Of ``meta`` three rows are."""
COPIED_META: Final = ("instance", "high_water_us", "audit_hash_key")


class RowDigest:
    """A checksum of rows, whatever database they come from."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Take more rows, in the order of their keys."""
        for row in rows:
            self.count += 1
            parts = [part.hex() if isinstance(part, bytes) else part for part in row]
            self._hash.update(repr(parts).encode("utf-8", "backslashreplace"))

    @property
    def checksum(self) -> str:
        """Return the checksum in hex."""
        return self._hash.hexdigest()
