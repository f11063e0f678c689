"""Reads what a database says about its keys before it is opened, and changes none of its bytes.

A start must verify the key first: to migrate, and even to close, a database writes to its files.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lessor_server.adapters.sqlite import keyring_statements as sql
from lessor_server.adapters.sqlite.columns import text_or_bytes
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, read_version
from lessor_server.adapters.sqlite.statements import GET_META
from lessor_server.engine.store_types import WrappedKey

SEALING_KEY: Final = "sealing_key"
"""The key of ``meta`` under which versions without data keys stored the id of the sealing key."""
_KEY_ID_LENGTH: Final = 16
LOST_DATA_KEYS: Final = "lessor.db has lost its data keys, and its rows are sealed under them"


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


def read_stored_keys(file: Path) -> StoredKeys:
    """Return what the database in ``file`` says about its keys.

    Raises:
        DatabaseUnusable: It is not a database that this version may use.
    """
    if not file.exists() or not file.stat().st_size:
        return StoredKeys()
    index = file.with_name(f"{file.name}-shm")
    had_index = index.exists()
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{_mode(file)}", uri=True)) as connection:
            connection.text_factory = text_or_bytes
            return _read(connection)
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"{file}: {error.message}") from error
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(f"{file}: the database cannot be read: {error}") from error
    finally:
        if not had_index:
            index.unlink(missing_ok=True)


def _mode(file: Path) -> str:
    """Return how SQLite opens a database without a change of its files (sqlite.org/uri.html)."""
    if file.with_name(f"{file.name}-journal").exists():
        return "mode=rw"  # killed while it was created: only a writer can undo that
    # Without "immutable" SQLite would create a log.
    return "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"


def _read(connection: sqlite3.Connection) -> StoredKeys:
    if not read_version(connection):
        return StoredKeys()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    noted = connection.execute(GET_META, {"key": SEALING_KEY}).fetchone()
    known = noted is not None and isinstance(noted[0], str) and len(noted[0]) == _KEY_ID_LENGTH
    data_keys = read_data_keys(connection) if "sealing_keys" in tables else []
    return StoredKeys(
        is_new=False,
        data_keys=tuple(data_keys),
        is_sealed=bool(data_keys) or ("sealing_keys" in tables and is_sealed(connection)),
        sealing_key_id=noted[0] if known else "",
        sealed_values=tuple(_sealed_values(connection, tables)),
    )


def read_data_keys(connection: sqlite3.Connection) -> list[WrappedKey]:
    """Return the stored data keys."""
    return [
        WrappedKey(str(key_id), _bytes(wrapped), str(wrapped_by), active == 1, _bytes(complete))
        for key_id, wrapped, wrapped_by, active, complete in connection.execute(sql.DATA_KEYS)
    ]


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Return whether there is what only a version with data keys writes."""
    return bool(connection.execute(sql.IS_SEALED).fetchone()[0])


def _sealed_values(connection: sqlite3.Connection, tables: set[str]) -> list[bytes]:
    queries = (query for table, query in sql.SEALED.items() if table in tables)
    found = (value for query in queries for row in connection.execute(query) for value in row)
    return [value for value in found if isinstance(value, bytes) and value]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
