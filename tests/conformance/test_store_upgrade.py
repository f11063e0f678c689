"""Checks that the rows of earlier versions are unchanged by an upgrade, and still used."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import START_US, TERMS, HandClock

from lessor_server.adapters.sql import statements
from lessor_server.adapters.sql.rotations import params_of as rotation_params
from lessor_server.adapters.sqlite.migrate import APPLICATION_ID, migrations
from lessor_server.adapters.sqlite.store import FILE, SqliteStore, open_store
from lessor_server.domain.errors.preconditions import StaticUserTaken
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.domain.rotation import Rotation, static_subject
from lessor_server.engine.store_types import BulkRevocation

HOUR_US = 3_600_000_000
REQUEST = "11111111-2222-4333-8444-555555555555"
ROWS: dict[str, dict[str, str | int]] = {
    "INTENT": {"claimed_by": "dead", "due_us": START_US + HOUR_US, "last_create_us": START_US},
    "ACTIVE": {"due_us": START_US + HOUR_US, "expires_us": START_US + HOUR_US, "request_id": REQUEST},
    "REVOKING": {"due_us": START_US - 1, "last_error": "AWS DeleteUser: Throttling", "attempts": 3},
    "ABANDONED": {"expires_us": START_US - HOUR_US},
    "GONE": {"gone_us": START_US - HOUR_US, "access_key_id": "AKIAGONE"},
}
"""A row of each state, by what it has besides what all have."""


def earlier(folder: Path, version: int) -> None:
    """Make a database of an earlier schema with a mount, its root, and a row of each state."""
    connection = sqlite3.connect(folder / FILE, isolation_level=None)
    for number, script in migrations()[:version]:
        connection.executescript(f"{script}\nPRAGMA user_version = {number};")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    columns = connection.execute("PRAGMA table_info(leases)").fetchall()
    for number, (state, own) in enumerate(ROWS.items()):
        made = builders.intent(number)
        texts: dict[str, str | int] = {
            "id": made.id,
            "mount": made.mount,
            "role": made.role,
            "owner": made.owner,
            "state": state,
        }
        texts |= {"credential_type": "IAM_USER", "account": builders.ACCOUNT}
        texts |= {"user_name": made.footprint.user_name, "user_path": made.footprint.user_path}
        row = texts | {"policy_arns": "[]", "groups": "[]", "generation": 7, "ttl_us": HOUR_US} | own
        values = [row.get(name, "" if kind == "TEXT" else 0) for _, name, kind, *_ in columns]
        connection.execute(f"INSERT INTO leases VALUES ({', '.join('?' * len(values))})", values)
    connection.execute(
        "INSERT INTO mounts VALUES ('aws', '', ?, ?, 5000, NULL, NULL, 'enabled', 0)", (HOUR_US, 24 * HOUR_US)
    )
    connection.execute("INSERT INTO roots VALUES ('aws', x'00', ?, 1, 'etag')", (builders.ACCOUNT,))
    connection.execute("INSERT INTO prefixes (low, cutoff_us, high) VALUES ('b/', 1, 'b0')")
    connection.close()


async def states(store: SqliteStore) -> Counter[State]:
    """Count the rows themselves by state, and compare with the counts that are kept."""
    rows = Counter(lease.state for lease in await store.page(EVERYTHING, None, "", 100))
    assert {one.state: one.count for one in await store.count(EVERYTHING, None)} == rows
    return rows


@pytest.mark.parametrize("version", [2, 3])
async def test_rows_of_every_state_are_kept_and_worked_on(tmp_path: Path, version: int) -> None:
    earlier(tmp_path, version)
    async with open_store(tmp_path, HandClock()) as store:
        assert (await store.status()).schema_version == migrations()[-1][0]
        leases = {lease.state.value: lease for lease in await store.page(EVERYTHING, None, "", 100)}
        assert leases.keys() == ROWS.keys()
        for lease in leases.values():
            assert (lease.generation, lease.footprint.account) == (7, builders.ACCOUNT)
            assert not lease.is_session
        assert (leases["REVOKING"].attempts, leases["REVOKING"].last_error) == (
            3,
            ROWS["REVOKING"]["last_error"],
        )
        assert set((await states(store)).values()) == {1}
        assert await store.get_bound_account("aws") == builders.ACCOUNT
        assert [prefix.ids for prefix in await store.prefixes()] == [IdRange("b/", "b0")]
        assert await store.void_stale_claims() == 1
        claims = {claim.id: claim for claim in await store.claim_due(TERMS, 10)}
        assert claims.keys() == {leases["INTENT"].id, leases["REVOKING"].id}
        for claim in claims.values():
            assert await lease_steps.finish(store, claim)
        assert await states(store) == {State.GONE: 3, State.ACTIVE: 1, State.ABANDONED: 1}


@pytest.mark.parametrize("version", [2, 3])
async def test_an_earlier_request_is_found_and_its_lease_renewed(tmp_path: Path, version: int) -> None:
    earlier(tmp_path, version)
    async with open_store(tmp_path, HandClock()) as store:
        lease = (await store.load_issue_context("aws", "app", "root", REQUEST)).earlier
        assert lease is not None
        assert lease.state is State.ACTIVE
        renewed = await lease_steps.renew(store, lease, START_US + 2 * HOUR_US)
        assert renewed is not None
        assert await store.revoke(renewed.id) is not None
        assert (await states(store))[State.REVOKING] == 2


async def test_rotations_of_an_earlier_version_are_found_by_their_user_and_keys(tmp_path: Path) -> None:
    earlier(tmp_path, 4)
    row = Rotation(
        static_subject("aws", "billing"), account="aws:1", user_id="AIDA1", current="AKIA1", generation=1
    )
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    given = rotation_params(row)
    body = json.loads(str(given["body"]))
    del body["ending"]  # a member of later
    given["body"] = json.dumps(body)
    names = ", ".join((*given, "claimed"))
    values = ", ".join((*(f":{name}" for name in given), "0"))
    connection.execute(f"INSERT INTO rotations ({names}) VALUES ({values})", given)
    connection.close()
    async with open_store(tmp_path, HandClock()) as store:
        assert await store.find_static_holder("AKIA1", "") == row
        with pytest.raises(StaticUserTaken):
            await store.add_rotation(replace(row, subject=static_subject("aws", "other")))


OFTEN = [
    statements.BEGIN,
    statements.BY_REQUEST,
    statements.CLAIM,
    statements.DUE,
    statements.DUE_WITHIN,
    statements.GET_LEASE,
    statements.GET_OWNER,
    statements.LIST_OF_OWNER,
    statements.COUNT_OF_OWNER,
    statements.LIVE_OWNERS,
    statements.RULE_LEASES,
    statements.WRITE_LEASE,
    statements.LEASES_BY_USER_NAME,
    statements.PURGE_TOMBSTONES,
    statements.PURGE_SESSIONS,
    statements.COUNT_RANGE,
    statements.PROGRESS,
    statements.MARK_RANGE_REVOKING,
    statements.CLAIM_ROTATION,
    statements.DUE_ROTATIONS,
    statements.NEXT_ROTATION,
    statements.LIST_STATIC,
    statements.STATIC_USER,
    statements.STATIC_HOLDER,
]


def plan_of(statement: str) -> list[str]:
    """Return the steps in which SQLite carries out a statement."""
    connection = sqlite3.connect(":memory:")
    for _, script in migrations():
        connection.executescript(script)
    params = dict.fromkeys(re.findall(r":(\w+)", statement), "1")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", params)]


@pytest.mark.parametrize("statement", OFTEN)
def test_frequent_statements_use_an_index(statement: str) -> None:
    plan = plan_of(statement)
    assert any(step.startswith("SEARCH") for step in plan)
    assert not [step for step in plan if re.match(r"SCAN (leases|rotations)\b", step)]


@pytest.mark.parametrize(
    "statement",
    [
        statements.LIST_OF_OWNER,
        statements.COUNT_OF_OWNER,
        statements.by_owner(statements.COUNT_RANGE),
        statements.by_owner(statements.PROGRESS),
        statements.by_owner(statements.MARK_RANGE_REVOKING),
    ],
)
def test_a_statement_about_one_owner_reads_no_row_of_another(statement: str) -> None:
    found = [step for step in plan_of(statement) if " leases" in step]
    assert found
    by_owner = r"SEARCH leases USING (COVERING )?INDEX leases_owner \(owner=\? AND id>\? AND id<\?\)"
    written = r"SEARCH leases USING (INDEX|PRIMARY KEY).* \(id=\?\)"  # each id that the search has found
    assert [step for step in found if re.fullmatch(by_owner, step)]
    assert [step for step in found if not re.fullmatch(f"{by_owner}|{written}", step)] == []


@pytest.mark.parametrize("statement", [statements.RULE_LEASES, statements.BEGIN])
def test_the_limit_of_a_rule_reads_only_leases_of_the_owner_and_the_rule(statement: str) -> None:
    found = {step for step in plan_of(statement) if " leases" in step}
    rule = "SEARCH leases USING COVERING INDEX {} (owner=? AND policy_rule=? AND {})"
    assert found == {
        rule.format("leases_rule", "state=?"),
        rule.format("leases_rule_session", "max_expires_us>?"),
    }


def test_the_owners_of_live_leases_are_counted_in_the_order_of_an_index() -> None:
    assert plan_of(statements.LIVE_OWNERS) == ["SEARCH leases USING COVERING INDEX leases_rule (owner>?)"]


@pytest.mark.parametrize("version", [2, 6])
async def test_leases_of_an_earlier_version_have_no_rule_and_its_prefixes_are_for_every_owner(
    tmp_path: Path, version: int
) -> None:
    earlier(tmp_path, version)
    async with open_store(tmp_path, HandClock()) as store:
        leases = await store.page(EVERYTHING, None, "", 100)
        assert {(lease.owner, lease.policy_rule) for lease in leases} == {("root", "")}
        assert await store.page(EVERYTHING, None, "", 100, "root") == leases
        assert await store.prefixes() == [BulkRevocation(IdRange("b/", "b0"), 1)]
        assert await store.list_owners("", 9) == [("root", 3)]


def test_the_statements_of_the_previous_version_still_work(tmp_path: Path) -> None:
    """A prefix that it opens is for every owner, as it meant."""
    earlier(tmp_path, len(migrations()))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        previous = "INSERT INTO prefixes (low, high, cutoff_us) VALUES ('a/', 'a0', 7) ON CONFLICT DO NOTHING"
        connection.execute(previous)
        connection.execute(previous)
        found = connection.execute("SELECT * FROM prefixes WHERE low = 'a/'").fetchall()
        assert found == [("a/", 7, "a0", "")]
        connection.execute("DELETE FROM prefixes WHERE low = 'a/' AND cutoff_us = 7")
        assert connection.execute("SELECT count(*) FROM prefixes").fetchone() == (1,)
