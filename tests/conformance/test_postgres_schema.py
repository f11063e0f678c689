"""Checks the tables and statements of PostgreSQL, and what a start verifies of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import cast

import asyncpg
import pytest
from tests.support.hand_clock import HandClock
from tests.support.postgres import LATER_SCHEMA, shared_postgres
from tests.support.postgres_store import HandDatabaseClock

from lessor_server.adapters.postgres import migrate
from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.dialect import spread, translate
from lessor_server.adapters.postgres.store import (
    Opening,
    migrate_database,
    open_postgres,
    read_audit_keys_of,
    read_keys_of,
)
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.postgres.transaction import Session
from lessor_server.adapters.sql import keyring_statements, login_statements, statements
from lessor_server.adapters.sqlite.migrate import migrations

NEWEST = migrate.schema_migrations()[-1][0]

OF_SQLITE = ("BAD_COUNTS", "RECOUNT_LEASES", "SOME_USER_PATHS")
"""Statements with which SQLite alone repairs what its types let in."""

LOCKS_SOME = re.compile(r"LIMIT\s\S+\s+FOR UPDATE")


@pytest.fixture(name="database")
def created(request: pytest.FixtureRequest) -> str:
    """Return the name of a new database."""
    name = f"schema{abs(hash(request.node.nodeid))}"
    shared_postgres().create_database(name)
    return name


@pytest.fixture(name="connection")
async def migrated(database: str) -> AsyncIterator[Session]:
    """Connect to a database of this version."""
    await migrate_database(DatabaseTarget(shared_postgres().url(database)))
    connection = await asyncpg.connect(shared_postgres().url(database))
    yield connection
    await connection.close()


def all_statements() -> dict[str, str]:
    """Return every statement that a store on PostgreSQL runs, by name."""
    found = {
        name: value
        for module in (statements, keyring_statements, login_statements, own)
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
        and value.split()[:1] in (["SELECT"], ["INSERT"], ["UPDATE"], ["DELETE"], ["WITH"])
    }  # fmt: skip
    scoped = ("COUNT_RANGE", "PROGRESS", "MARK_RANGE_REVOKING")
    found |= {f"{name} of an owner": statements.by_owner(found[name]) for name in scoped}
    return {name: text for name, text in found.items() if name not in OF_SQLITE}


async def test_every_statement_is_valid(connection: Session) -> None:
    found = all_statements()
    assert len(found) > 80
    columns = {"BEGIN_MANY": own.BEGIN_COLUMNS, "WRITE_MANY": own.WRITE_COLUMNS}
    for name, asked in found.items():
        text = spread(asked, columns[name])[0] if name in columns else translate(asked).text
        try:
            await connection.prepare(text)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{name}: {error}\n{text}")


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (own.CLAIM_DUE, "leases_due"),
        (statements.DUE_WITHIN, "leases_due"),
        (statements.BY_REQUEST, "leases_request"),
        (statements.LIST_OF_OWNER, "leases_owner"),
        (statements.LEASES_BY_USER_NAME, "leases_user"),
        (statements.PURGE_SESSIONS, "leases_session_gone"),
        (statements.STATIC_USER, "rotations_user"),
        (statements.MARK_RANGE_REVOKING, "leases_pkey"),
        (login_statements.LIVE_TOKENS, "login_tokens_live"),
        (login_statements.END_LOGIN_TOKEN, "login_tokens_children"),
        (login_statements.PURGE_EXPIRED, "login_tokens_ended"),
        (login_statements.PURGE_ORPHANS, "login_tokens_children"),
    ],
)
async def test_a_statement_finds_its_rows_by_an_index(
    connection: Session, statement: str, index: str
) -> None:
    """With few rows the planner prefers to read all of them, so it is asked for the other plan."""
    await connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked AS {translate(statement).text}")
    nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", translate(statement).text))))
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE asked({nothing})"))
    assert index in plan


def test_what_a_statement_locks_up_to_a_limit_is_chosen_once() -> None:
    """A plan may run a subquery again for each row, and each run locks further rows."""
    limited = [text for text in map(translate, all_statements().values()) if LOCKS_SOME.search(text.text)]
    assert len(limited) >= 6
    for statement in limited:
        assert re.search(r"AS MATERIALIZED \(|= ANY \(ARRAY\(", statement.text), statement.text


def test_migrations_have_the_numbers_and_names_of_sqlite() -> None:
    assert [number for number, _, _ in migrate.schema_migrations()] == [number for number, _ in migrations()]


PARTS = {
    "columns": """
        SELECT table_name, column_name, data_type, collation_name,
            is_nullable = 'YES' OR column_default IS NOT NULL
        FROM information_schema.columns WHERE table_schema = current_schema()
    """,
    "triggers": "SELECT tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid) FROM pg_trigger",
    "functions": """
        SELECT proname::text, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace
    """,
    "indexes": """
        SELECT tablename::text, indexname::text, replace(indexdef, 'UNIQUE', '!') FROM pg_indexes
        WHERE schemaname = current_schema()
    """,
}


async def read_parts(connection: Session) -> dict[str, set[tuple[object, ...]]]:
    """Return all parts of a schema."""
    return {name: {tuple(row) for row in await connection.fetch(query)} for name, query in PARTS.items()}


async def test_later_migrations_only_add_what_servers_of_an_earlier_schema_need_not_know(
    database: str,
) -> None:
    """Replicas of the oldest schema that is served go on working, whatever they write."""
    connection = await asyncpg.connect(shared_postgres().url(database))
    later = [number for number, _, _ in migrate.schema_migrations() if number > migrate.OLDEST_SCHEMA]
    assert later
    for number, _, script in migrate.schema_migrations():
        before = await read_parts(connection)
        await connection.execute(script)
        after = await read_parts(connection)
        if number not in later:
            continue
        tables = {table for table, *_ in before["columns"]}
        for part, found in after.items():
            assert before[part] <= found, f"migration {number} changes or removes {part}"
            new = {row for row in found - before[part] if row[0] in tables}
            if part == "columns":
                new = {row for row in new if not row[-1]}  # an older server gives it no value
            elif part == "indexes":
                new = {row for row in new if "!" in str(row[-1])}  # it may write what is not unique
            assert not new, f"migration {number} adds {new}"
    await connection.close()


async def test_a_later_schema_is_used_if_its_version_says_so(database: str, connection: Session) -> None:
    target = DatabaseTarget(shared_postgres().url(database))
    newest = migrate.schema_migrations()[-1][0]
    problem = f"has schema {newest + 1}; this version knows up to {newest}"
    await connection.execute(LATER_SCHEMA)
    async with open_postgres(target, HandDatabaseClock(HandClock())) as store:
        assert (await store.status()).schema_version == newest + 1
    assert await migrate_database(target) == (newest + 1, newest)
    for oldest in (str(newest + 1), "", "x"):
        await connection.execute("UPDATE meta SET value = $1 WHERE key = 'oldest_schema'", oldest)
        with pytest.raises(DatabaseRefused, match=problem):
            async with open_postgres(target, HandDatabaseClock(HandClock())):
                pass
    await connection.execute("DELETE FROM meta WHERE key = 'oldest_schema'")
    with pytest.raises(DatabaseRefused, match=problem):
        await migrate_database(target)


async def test_many_servers_migrate_at_the_same_time(database: str) -> None:
    target = DatabaseTarget(shared_postgres().url(database))

    async def start() -> str:
        async with open_postgres(target, HandDatabaseClock(HandClock())) as store:
            return (await store.status()).instance_id

    assert len(set(await asyncio.gather(*(start() for _ in range(6))))) == 1
    rows = shared_postgres().run("SELECT count(*), max(number) FROM lessor_migrations", database)
    assert rows == f"{NEWEST}|{NEWEST}"


async def test_a_migration_may_wait_and_run_longer_than_another_statement(
    database: str, connection: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = (NEWEST + 1, "slow", "SELECT pg_sleep(1)")
    migrations = (*migrate.schema_migrations(), slow)
    monkeypatch.setattr(migrate, "schema_migrations", lambda: migrations)
    impatient = await asyncpg.connect(shared_postgres().url(database), command_timeout=0.5)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {migrate.TABLE} IN EXCLUSIVE MODE")
        migration = asyncio.create_task(migrate.migrate_schema(impatient))
        await connection.execute("SELECT pg_sleep(1)")
    assert await migration == NEWEST + 1
    await impatient.close()


async def test_a_migration_that_gets_no_lock_names_the_other_process(
    database: str, connection: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {migrate.TABLE} IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseRefused, match="another process") as raised:
            await migrate_database(DatabaseTarget(shared_postgres().url(database)))
    assert raised.value.fix == "wait until it has ended, and try again"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("ALTER TABLE leases DROP COLUMN reason", "lacks the column leases.reason"),
        ("DROP TRIGGER leases_count_insert ON leases", "trigger leases_count_insert is missing"),
        (
            (
                "CREATE TRIGGER spy BEFORE UPDATE ON roots FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
            "trigger spy is missing, or Lessor did not create it",
        ),
        (
            (
                "CREATE OR REPLACE FUNCTION lessor_count_inserted() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN RETURN NULL; END'"
            ),
            "trigger leases_count_insert is missing, or Lessor did not create it",
        ),
        ("CREATE RULE spy AS ON UPDATE TO roots DO INSTEAD NOTHING", "roots has rules or row security"),
        ("ALTER TABLE leases ENABLE ROW LEVEL SECURITY", "leases has rules or row security"),
    ],
)
async def test_tables_that_others_have_changed_are_refused(
    database: str, connection: Session, change: str, problem: str
) -> None:
    await connection.execute(change)
    with pytest.raises(DatabaseRefused, match=problem):
        async with open_postgres(
            DatabaseTarget(shared_postgres().url(database)), HandDatabaseClock(HandClock())
        ):
            pass


async def test_a_role_without_a_right_is_refused(database: str, connection: Session) -> None:
    role = f"limited_{database}"
    await connection.execute(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    url = shared_postgres().url(database).replace("lessor@", f"{role}@")
    with pytest.raises(DatabaseRefused, match=r"no right on \w+: (INSERT|UPDATE|DELETE)"):
        async with open_postgres(DatabaseTarget(url), HandDatabaseClock(HandClock())):
            pass


async def test_a_role_needs_no_more_than_rights_on_the_tables(database: str, connection: Session) -> None:
    role = f"server_{database}"
    await connection.execute(
        f"CREATE ROLE {role} LOGIN;"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    )
    url = shared_postgres().url(database).replace("lessor@", f"{role}@")
    opening = Opening(migrate=False)
    async with open_postgres(DatabaseTarget(url), HandDatabaseClock(HandClock()), opening) as store:
        assert (await store.status()).schema_version == NEWEST


class Interrupted:
    """A connection; once it has read the data keys, another server stores the first, if there is none."""

    def __init__(self, connection: Session, other: Session) -> None:
        self._connection = connection
        self._other = other

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    async def fetch(self, text: str, *arguments: object) -> object:
        found = await self._connection.fetch(text, *arguments)
        if "FROM sealing_keys" in text:
            await self._other.execute(
                "INSERT INTO sealing_keys VALUES ('k1', '', '', 1, '') ON CONFLICT DO NOTHING;"
                "INSERT INTO row_macs VALUES ('aws', 'mounts/aws', '') ON CONFLICT DO NOTHING;"
                "INSERT INTO meta VALUES ('audit_hash_key', '00') ON CONFLICT (key)"
                " DO UPDATE SET value = '01'"
            )
        return found


async def test_keys_are_read_as_of_one_moment_while_another_server_stores_the_first(
    database: str, connection: Session
) -> None:
    other = await asyncpg.connect(shared_postgres().url(database))
    try:
        interrupted = cast("Session", Interrupted(connection, other))
        before = await read_keys_of(interrupted)
        after = await read_keys_of(interrupted)
    finally:
        await other.close()
    assert (len(before.data_keys), before.is_sealed) == (0, False)
    assert (len(after.data_keys), after.is_sealed) == (1, True)


async def test_keys_of_audits_are_read_as_of_one_moment_while_another_server_rotates_the_data_key(
    database: str, connection: Session
) -> None:
    other = await asyncpg.connect(shared_postgres().url(database))
    try:
        interrupted = cast("Session", Interrupted(connection, other))
        await read_keys_of(interrupted)
        before = await read_audit_keys_of(interrupted)
        after = await read_audit_keys_of(connection)
    finally:
        await other.close()
    assert (before.sealed_hash_key, after.sealed_hash_key) == (b"\x00", b"\x01")


async def test_an_empty_database_is_not_migrated_against_the_setting(database: str) -> None:
    with pytest.raises(DatabaseRefused, match=f"has schema 0, and this version needs {NEWEST}"):
        async with open_postgres(
            DatabaseTarget(shared_postgres().url(database)),
            HandDatabaseClock(HandClock()),
            Opening(migrate=False),
        ):
            pass
