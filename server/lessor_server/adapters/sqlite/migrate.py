"""Creates a database, or migrates it to this version's schema.

Migrations are files ``NNNN_name.sql``, run in order, each in its own transaction; the number of
the last one is in ``PRAGMA user_version``. A database of a newer version is refused.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import resources

from lessor_server.domain.errors.base import LessorError

APPLICATION_ID = 0x4C53_4F52
"""``LSOR`` in the file's header (sqlite.org, "PRAGMA application_id"): this file is Lessor's."""


_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-65536",
    f"PRAGMA application_id={APPLICATION_ID}",
)


class DatabaseUnusable(LessorError):
    """The database file is not Lessor's, is damaged, or comes from a newer version."""

    reason = "DATABASE_UNUSABLE"
    fix = (
        "name the right data directory with LESSOR_DATA_DIR, restore a backup, or run the version that wrote"
        " the file"
    )


def migrations() -> list[tuple[int, str]]:
    """Return (number, script) of every migration, in order."""
    folder = resources.files(__package__) / "migrations"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )
    return [(int(file.name.split("_")[0]), file.read_text()) for file in files]


def prepare(connection: sqlite3.Connection) -> int:
    """Check that the file is ours, set up the connection, and run the missing migrations.

    Returns the schema's version. A refused file is not changed.

    Raises:
        DatabaseUnusable: This version cannot use the file.
    """
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        known = migrations()
        version = _version(connection, known[-1][0])
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
        for number, script in known:
            if number > version:
                _apply(connection, number, script)
        _require_whole(connection, known)
        return known[-1][0]
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(f"the database cannot be read: {error}") from error


def _require_whole(connection: sqlite3.Connection, known: list[tuple[int, str]]) -> None:
    """Raise ``DatabaseUnusable`` if the file lacks a table, column or trigger of the migrations."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for number, script in known:
            _apply(model, number, script)
        missing = sorted(_parts(model) - _parts(connection))
    if missing:
        raise DatabaseUnusable(f"the database lacks {missing[0]}")


def _parts(connection: sqlite3.Connection) -> set[str]:
    """Return the names of a database's tables, columns and triggers."""
    kinds = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'trigger')")
    found = [(str(kind), str(name)) for kind, name in kinds.fetchall()]
    columns = connection.execute(
        "SELECT made.name, columns.name FROM sqlite_master AS made, pragma_table_info(made.name) AS columns"
        " WHERE made.type = 'table'"
    )
    return {f"the {kind} {name}" for kind, name in found} | {
        f"the column {table}.{column}" for table, column in columns.fetchall()
    }


def _version(connection: sqlite3.Connection, newest: int) -> int:
    """Return the file's schema version, 0 for a new file; raise if it is another program's or newer."""
    version = _pragma(connection, "user_version")
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise DatabaseUnusable("the file is a database of another program")
    if version > newest:
        raise DatabaseUnusable(f"the database has schema {version}; this version knows up to {newest}")
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _apply(connection: sqlite3.Connection, number: int, script: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
