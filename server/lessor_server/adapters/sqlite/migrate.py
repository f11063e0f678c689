"""Creates a database, or migrates it to this version's schema.

Migrations are files ``NNNN_name.sql``, run in order, each in its own transaction; the number of
the last one is in ``PRAGMA user_version``. A database of a newer version is refused.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Mapping
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


_MAY_DIFFER = re.compile(r'NOT NULL|["\s]')


class DatabaseUnusable(LessorError):
    """The database file is not Lessor's, is damaged, or comes from a newer version."""

    reason = "DATABASE_UNUSABLE"
    fix = (
        "name the right data directory with LESSOR_DATA_DIR, restore a backup, or run the version that wrote"
        " the file"
    )


@functools.cache
def migrations() -> tuple[tuple[int, str], ...]:
    """Return (number, script) of every migration, in order."""
    folder = resources.files(__package__) / "migrations"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )
    return tuple((int(file.name.split("_")[0]), file.read_text()) for file in files)


def migrate(connection: sqlite3.Connection, before_upgrade: Callable[[int], None] = lambda _: None) -> int:
    """Set up the connection to a verified file, and run the missing migrations.

    ``before_upgrade`` is called with the number of the first migration, if an earlier version used the
    database. Returns the schema's version.

    Raises:
        DatabaseUnusable: This version cannot use the file.
    """
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        known, version = migrations(), _pragma(connection, "user_version")
        missing = [(number, script) for number, script in known if number > version]
        if version and missing and connection.execute("SELECT EXISTS (SELECT 1 FROM mounts)").fetchone()[0]:
            before_upgrade(missing[0][0])
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
        for number, script in missing:
            _apply(connection, number, script)
        return known[-1][0]
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(f"the database cannot be read: {error}") from error


def _require_whole(connection: sqlite3.Connection, version: int) -> None:
    """Raise ``DatabaseUnusable`` if the file's tables, columns and triggers are not those of the migrations.

    A trigger or view of somebody else could change a row while Lessor writes and authenticates it.
    """
    parts, ours = _schema_of(version)
    missing = sorted(parts - _parts(connection))
    if missing:
        raise DatabaseUnusable(f"the database lacks {missing[0]}")
    for (kind, name), definition in _definitions(connection).items():
        if ours.get((kind, name), definition if kind == "table" else "") != definition:
            raise DatabaseUnusable(f"the {kind} {name} of the database is not one that Lessor created")


@functools.cache
def _schema_of(version: int) -> tuple[frozenset[str], Mapping[tuple[str, str], str]]:
    """Return the parts and the definitions that the migrations up to a version create."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for number, script in migrations():
            if number <= version:
                _apply(model, number, script)
        return frozenset(_parts(model)), _definitions(model)


def _definitions(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return how tables, triggers and views are defined, without what may differ.

    Versions of SQLite differ in quotes and spaces. A NULL in a column that forbids it makes a row unreadable
    at most.
    """
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'trigger', 'view') ORDER BY 1, 2"
    )
    return {(str(kind), str(name)): _MAY_DIFFER.sub("", str(script)) for kind, name, script in found}


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


def read_version(connection: sqlite3.Connection) -> int:
    """Verify that the file is Lessor's and whole; return its schema version, 0 for a new file.

    Raises:
        DatabaseUnusable: This version cannot use the file.
    """
    version, newest = _pragma(connection, "user_version"), migrations()[-1][0]
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise DatabaseUnusable("the file is a database of another program")
    if version > newest:
        raise DatabaseUnusable(f"the database has schema {version}; this version knows up to {newest}")
    _require_whole(connection, version)
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
