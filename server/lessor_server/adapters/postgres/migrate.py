"""Creates the tables of a database, or migrates them; verifies that they are Lessor's and can be used.

Migrations have the numbers and names of those of SQLite, and run in order, each in one transaction with its
row in ``lessor_migrations``. A lock on that table lets one process migrate at a time: several may start
together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Final

import asyncpg

from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.transaction import Session

MIN_SERVER: Final = 16
"""The oldest major version of PostgreSQL that is tested against the statements."""
LOCK_SECONDS: Final = 60
"""How long a migration waits for another process that migrates, or for each table that it changes."""
MIGRATION_SECONDS: Final = 86_400
"""How long one migration may take: one that adds an index reads the whole table."""
OLDEST_SCHEMA: Final = 9
"""The oldest schema whose servers work on a database of this version: later migrations only add.

A migration that changes or removes something, or a version that stores what servers of that schema misread,
sets it to its own number.
"""
TABLE: Final = "lessor_migrations"
_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    number     bigint PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_SCHEMA: Final = f"SELECT coalesce(max(number), 0) FROM {TABLE}"
_APPLIED: Final = f"INSERT INTO {TABLE} (number, name) VALUES ($1, $2)"
_PUT_OLDEST: Final = """
INSERT INTO meta (key, value) VALUES ('oldest_schema', $1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
_OLDEST: Final = "SELECT value FROM meta WHERE key = 'oldest_schema'"
_TABLES_OF_SCHEMA: Final = """
SELECT relname::text FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
  AND relkind IN ('r', 'p', 'v', 'm')
"""
_TRIGGERS: Final = """
SELECT tgname::text, btrim(prosrc, E' \n') FROM pg_trigger
JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE NOT tgisinternal AND relname = ANY ($1)
  AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""
_REWRITTEN: Final = """
SELECT relname::text FROM pg_class
WHERE relname = ANY ($1) AND (relhasrules OR relrowsecurity OR relkind <> 'r')
  AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) LIMIT 1
"""
_COLUMNS: Final = """
SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema()
"""
_RIGHTS: Final = """
SELECT name || ': ' || kind
FROM unnest($1::text[]) AS name, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS kind
WHERE NOT has_table_privilege(current_user, name, kind) LIMIT 1
"""
_TRIGGER: Final = re.compile(r"^CREATE TRIGGER (\w+)", re.MULTILINE)
_ITS_FUNCTION: Final = re.compile(r"EXECUTE FUNCTION (\w+)")
_FUNCTION: Final = re.compile(r"^CREATE FUNCTION (\w+)\(\)[^$]*\$\$(.*?)\$\$", re.MULTILINE | re.DOTALL)
_TABLE_BODY: Final = re.compile(r"^CREATE TABLE (\w+) \((.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN: Final = re.compile(r"^    ([a-z_]+) ", re.MULTILINE)
_ADDED: Final = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", re.MULTILINE)


@cache
def schema_migrations() -> tuple[tuple[int, str, str], ...]:
    """Return the number, the name and the script of every migration, in order."""
    folder = resources.files(__package__) / "migrations"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )
    return tuple(
        (int(file.name.split("_")[0]), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in files
    )


async def read_schema(connection: Session) -> int:
    """Return the number of the last migration of a database; 0 if it is empty.

    Raises:
        DatabaseRefused: It is not Lessor's, or only reads, or a later version has migrated it in a way that
            this one cannot use.
    """
    version = int(connection.get_server_version().major)
    if version < MIN_SERVER:
        raise DatabaseRefused(
            f"the server is PostgreSQL {version}", fix=f"use PostgreSQL {MIN_SERVER} or later"
        )
    if await connection.fetchval(
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
    ):
        raise DatabaseRefused(
            "the database only reads: it is a standby, or default_transaction_read_only is on",
            fix="name the primary in store.url, or all servers with target_session_attrs=read-write",
        )
    if await connection.fetchval("SELECT current_schema()") is None:
        raise DatabaseRefused(
            "no schema of the search_path exists",
            fix="create the schema, and grant the role USAGE and CREATE on it",
        )
    tables = await read_tables(connection)
    if TABLE not in tables:
        if tables:
            raise DatabaseRefused(
                "the database is of another program: it has tables, and none are Lessor's",
                fix="name an empty database, or one of Lessor, in store.url",
            )
        return 0
    schema = int(await connection.fetchval(_SCHEMA))
    newest = schema_migrations()[-1][0]
    if schema > newest and not await _allows(connection, newest):
        raise DatabaseRefused(
            f"the database has schema {schema}; this version knows up to {newest}",
            fix="run the version that migrated the database, or a later one",
        )
    return schema


async def _allows(connection: Session, schema: int) -> bool:
    """Return whether a database of a later version can be used by servers of this schema."""
    oldest = str(await connection.fetchval(_OLDEST))
    return oldest.isdecimal() and int(oldest) <= schema


async def read_tables(connection: Session) -> set[str]:
    """Return the names of the tables and views of the schema."""
    return {name for (name,) in await connection.fetch(_TABLES_OF_SCHEMA)}


async def migrate_schema(connection: Session) -> int:
    """Run the missing migrations; return the number of the last.

    Raises:
        DatabaseRefused: The role lacks a right, the database is not Lessor's, or another process uses it.
    """
    await read_schema(connection)
    try:
        await _create_table(connection)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            await connection.execute("SET LOCAL statement_timeout = 0")
            # Each with a timeout of its own: that of the driver is the one of other statements.
            await connection.execute(f"LOCK TABLE {TABLE} IN EXCLUSIVE MODE", timeout=LOCK_SECONDS + 1)
            schema = await read_schema(connection)
            for number, name, script in schema_migrations():
                if number > schema:
                    await connection.execute(script, timeout=MIGRATION_SECONDS)
                    await connection.execute(_APPLIED, number, name)
            if schema < schema_migrations()[-1][0]:
                await connection.execute(_PUT_OLDEST, str(OLDEST_SCHEMA))
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseRefused(
            f"the role cannot create the tables: {error}",
            fix="grant the role CREATE on the schema, or run lessor migrate as one that has it",
        ) from None
    except asyncpg.LockNotAvailableError:
        raise DatabaseRefused(
            f"another process has used the tables for {LOCK_SECONDS} s, such as a server that migrates them",
            fix="wait until it has ended, and try again",
        ) from None
    return schema_migrations()[-1][0]


async def _create_table(connection: Session) -> None:
    """Create the table of migrations; another process may do so at the same time."""
    try:
        await connection.execute(_CREATE)
    except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError):
        return  # IF NOT EXISTS does not cover a table that is not committed yet


async def require_usable(connection: Session) -> None:
    """Raise ``DatabaseRefused`` if the tables are not those of the migrations, or the role lacks a right.

    A trigger, a rule or a policy of somebody else could change or hide rows that Lessor authenticates.
    """
    tables, triggers, columns = _expected()
    names = sorted(tables)
    found = {name for (name,) in await connection.fetch(_COLUMNS)}
    missing = sorted(columns - found)
    if missing:
        raise DatabaseRefused(f"the database lacks the column {missing[0]}", fix="restore a backup")
    strange = {(name, body) for name, body in await connection.fetch(_TRIGGERS, names)} ^ triggers
    if strange:
        raise DatabaseRefused(
            f"the trigger {min(strange)[0]} is missing, or Lessor did not create it", fix="restore a backup"
        )
    rewritten = await connection.fetchval(_REWRITTEN, names)
    if rewritten is not None:
        raise DatabaseRefused(
            f"the table {rewritten} has rules or row security", fix="remove what Lessor did not create"
        )
    refused = await connection.fetchval(_RIGHTS, names)
    if refused is not None:
        raise DatabaseRefused(
            f"the role has no right on {refused}",
            fix="grant it SELECT, INSERT, UPDATE and DELETE on all tables of the schema",
        )


def _find_triggers(text: str, functions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the triggers of a script, each with the body of its function."""
    for statement in text.split(";"):
        name, function = _TRIGGER.search(statement), _ITS_FUNCTION.search(statement)
        if name and function:
            yield name[1], functions[function[1]].strip()


@cache
def _expected() -> tuple[frozenset[str], frozenset[tuple[str, str]], frozenset[str]]:
    """Return the tables, the triggers with the bodies of their functions, and the columns."""
    text = "\n".join(script for _, _, script in schema_migrations())
    tables = _TABLE_BODY.findall(text)
    functions = dict(_FUNCTION.findall(text))
    triggers = set(_find_triggers(text, functions))
    columns = {f"{table}.{column}" for table, body in tables for column in _COLUMN.findall(body)}
    columns |= {f"{table}.{column}" for table, column in _ADDED.findall(text)}
    return frozenset(name for name, _ in tables), frozenset(triggers), frozenset(columns)
