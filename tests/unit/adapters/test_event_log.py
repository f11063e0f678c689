"""Checks the log lines of events."""

from __future__ import annotations

import io
import json
import random

import pytest

from lessor_server.adapters.observing.events import EventLog
from lessor_server.adapters.observing.log import LogLevel, make_logger
from lessor_server.domain import events
from lessor_server.domain.events import Event

LEASE_ID = "aws/creds/app/Zz9" + "A" * 21
INSTANT_US = 1_796_000_000_000_007


def logged(event: Event) -> dict[str, object]:
    """Log an event as JSON and read it back."""
    stream = io.StringIO()
    EventLog(make_logger(LogLevel("info"), "json", stream), random.Random(1))(event)
    line: dict[str, object] = json.loads(stream.getvalue())
    return line


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (events.Issued(LEASE_ID, "AKIA", "root", INSTANT_US), "expires"),
        (events.Renewed(LEASE_ID, INSTANT_US, "root"), "expires"),
        (events.Retired(LEASE_ID, INSTANT_US), "expires"),
        (events.Forgotten(LEASE_ID, INSTANT_US), "works_until"),
        (events.RotationMissed("aws/root", INSTANT_US), "next"),
    ],
)
def test_an_instant_is_logged_as_a_time(event: Event, name: str) -> None:
    line = logged(event)
    assert line[name] == "2026-11-30T00:53:20.000007Z"
    assert not [field for field in line if field.endswith("_us")]


def test_an_instant_that_never_was_is_logged_as_none() -> None:
    assert logged(events.Forgotten(LEASE_ID, 0))["works_until"] is None


def test_the_reason_of_a_lease_is_logged() -> None:
    assert (
        logged(events.Issued(LEASE_ID, "AKIA", "root", INSTANT_US, "ticket 4711"))["reason"] == "ticket 4711"
    )


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (events.Created("role", "aws/app", "root"), "created"),
        (events.Changed("role", "aws/app", "root"), "changed"),
        (events.Deleted("role", "aws/app", "root"), "deleted"),
        (events.MountDisabled("aws", "root", force=True), "mount_disabled"),
        (events.UserMissing(LEASE_ID, "user"), "user_missed"),
        (events.Reconciled("aws", 3, 1), "swept"),
        (events.ReconcileFailed("aws", "AWS does not answer"), "sweep_failed"),
    ],
)
def test_each_event_has_its_name_in_the_log(event: Event, name: str) -> None:
    assert logged(event)["event"] == name
