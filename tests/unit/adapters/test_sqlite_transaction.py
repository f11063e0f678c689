"""Checks how statements with named parameters run on SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.transaction import PARAMETER
from lessor_server.adapters.sqlite.migrate import migrate
from lessor_server.adapters.sqlite.transaction import SqliteTransaction, run_job


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("SELECT 1", (1,)),
        ("SELECT :one", ("a",)),
        ("SELECT :two, :one, :two, ':' || :one", ("b", "a", "b", ":a")),
        ("SELECT :one_us, :one, :one_us_two", (1, "a", None)),
    ],
)
def test_a_parameter_has_its_value_wherever_it_is_named(statement: str, row: tuple[object, ...]) -> None:
    params = {"one": "a", "two": "b", "one_us": 1, "one_us_two": None, "unused": b""}
    with closing(sqlite3.connect(":memory:")) as connection:
        assert run_job(SqliteTransaction(connection).row(statement, params)) == row


def test_each_of_many_rows_gets_its_own_values() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE pairs (a, b)")
        many = [{"b": number, "a": -number} for number in range(3)]
        run_job(SqliteTransaction(connection).change_many("INSERT INTO pairs VALUES (:a, :b)", many))
        assert connection.execute("SELECT * FROM pairs").fetchall() == [(0, 0), (-1, 1), (-2, 2)]


def test_a_lease_that_stays_active_leaves_the_indexes_and_counts_of_states_alone() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        pages = dict(connection.execute("SELECT rootpage, name FROM sqlite_master WHERE rootpage > 0"))
        params = dict.fromkeys(PARAMETER.findall(sql.WRITE_ACTIVE_LEASE))
        steps = connection.execute(f"EXPLAIN {sql.WRITE_ACTIVE_LEASE}", params).fetchall()
    written = {pages[step[3]] for step in steps if step[1] == "OpenWrite"}
    assert {"leases", "leases_due"} <= written
    assert written.isdisjoint({"lease_counts", "leases_rule", "leases_claimed", "leases_gone"})
