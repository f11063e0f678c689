"""Reads what a database says about its keys before it is opened, and changes none of its bytes.

A start must verify the key first: to migrate, and even to close, a database writes to its files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from lessor_server.adapters.sql.stored_keys import StoredKeys, read_keys
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, migrations, read_version
from lessor_server.adapters.sqlite.transaction import SqliteTransaction, run_job, text_or_bytes

T = TypeVar("T")


def read_stored_keys(file: Path) -> StoredKeys:
    """Return what the database in ``file`` says about its keys.

    Raises:
        DatabaseUnusable: It is not a database that this version may use.
    """
    if not _has_content(file):
        return StoredKeys()
    return _read_file(file, _read)


def read_file_schema(file: Path) -> tuple[int, int]:
    """Return the schema of the database in ``file``, 0 if there is none, and the newest; raises as above."""
    return _read_file(file, read_version) if _has_content(file) else 0, migrations()[-1][0]


def _has_content(file: Path) -> bool:
    return file.exists() and bool(file.stat().st_size)


def _read_file(file: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read a database and change none of its bytes."""
    index = file.with_name(f"{file.name}-shm")
    had_index = index.exists()
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{_mode(file)}", uri=True)) as connection:
            connection.text_factory = text_or_bytes
            return read(connection)
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
    return run_job(read_keys(SqliteTransaction(connection), tables))
