"""Checks the rules of a static role."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.root import Hop
from lessor_server.domain.schedule import NEVER, Schedule
from lessor_server.domain.static_role import StaticRole, violations

GOOD = StaticRole("aws", "billing", "svc-billing@example.com", Schedule(timedelta(minutes=1)))


@pytest.mark.parametrize(
    "role",
    [
        GOOD,
        replace(GOOD, live_keys=1),
        replace(GOOD, schedule=Schedule(cron="0 3 * * 0", window=timedelta(hours=2))),
        replace(GOOD, assume_chain=(Hop("arn:aws:iam::210987654321:role/keys", "outside"),)),
    ],
)
def test_a_valid_static_role_has_no_violation(role: StaticRole) -> None:
    assert violations(role) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"username": ""}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "a" * 65}, "username"),
        ({"schedule": NEVER}, "rotation_period"),
        ({"schedule": Schedule(timedelta(seconds=45))}, "rotation_period"),
        ({"schedule": Schedule(cron="0 0 31 2 *")}, "rotation_schedule"),
        ({"live_keys": 0}, "live_keys"),
        ({"live_keys": 3}, "live_keys"),
        ({"assume_chain": (Hop("nonsense"),)}, "assume_chain[0].role_arn"),
    ],
)
def test_each_invalid_field_is_named(changes: dict[str, object], field: str) -> None:
    assert [violation.field for violation in violations(replace(GOOD, **changes))] == [field]  # type: ignore[arg-type]


def test_all_violations_of_a_static_role_are_reported() -> None:
    bad = StaticRole("aws", "", "", NEVER, 9, (Hop("x"),))
    fields = {violation.field for violation in violations(bad)}
    assert fields == {"name", "username", "rotation_period", "live_keys", "assume_chain[0].role_arn"}
