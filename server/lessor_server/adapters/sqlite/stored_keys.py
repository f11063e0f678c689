"""Reads what a database says about its keys before it is opened, and changes none of its bytes.

A start must verify the key first: to migrate, and even to close, a database writes to its files.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lessor_server.adapters.sql.stored_keys import StoredKeys, read_keys
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable, read_version
from lessor_server.adapters.sqlite.transaction import SqliteTransaction, run_job, text_or_bytes


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
    return run_job(read_keys(SqliteTransaction(connection), tables))
