"""Checks the tables and statements of PostgreSQL, and what a start verifies of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.support.hand_clock import HandClock
from tests.support.postgres import shared_postgres
from tests.support.postgres_store import HandDatabaseClock

from lessor_server.adapters.postgres import migrate
from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.dialect import spread, translate
from lessor_server.adapters.postgres.store import Opening, migrate_database, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.postgres.transaction import Session
from lessor_server.adapters.sql import keyring_statements, login_statements, statements
from lessor_server.adapters.sqlite.migrate import migrations

NEWEST = migrate.schema_migrations()[-1][0]

OF_SQLITE = ("BAD_COUNTS", "RECOUNT_LEASES", "SOME_USER_PATHS")
"""Statements with which SQLite alone repairs what its types let in."""


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
        and value.split()[:1] in (["SELECT"], ["INSERT"], ["UPDATE"], ["DELETE"])
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


def test_migrations_have_the_numbers_and_names_of_sqlite() -> None:
    assert [number for number, _, _ in migrate.schema_migrations()] == [number for number, _ in migrations()]


async def test_many_servers_migrate_at_the_same_time(database: str) -> None:
    target = DatabaseTarget(shared_postgres().url(database))

    async def start() -> str:
        async with open_postgres(target, HandDatabaseClock(HandClock())) as store:
            return (await store.status()).instance_id

    assert len(set(await asyncio.gather(*(start() for _ in range(6))))) == 1
    rows = shared_postgres().run("SELECT count(*), max(number) FROM lessor_migrations", database)
    assert rows == f"{NEWEST}|{NEWEST}"


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


async def test_an_empty_database_is_not_migrated_against_the_setting(database: str) -> None:
    with pytest.raises(DatabaseRefused, match=f"has schema 0, and this version needs {NEWEST}"):
        async with open_postgres(
            DatabaseTarget(shared_postgres().url(database)),
            HandDatabaseClock(HandClock()),
            Opening(migrate=False),
        ):
            pass
