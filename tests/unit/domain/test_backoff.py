"""Checks the delays of refused revocations, outage probes and checks for a missing user."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain import backoff

CHANCE = st.floats(min_value=0, max_value=1, exclude_max=True)
COUNT = st.integers(min_value=1, max_value=10_000)


@given(COUNT, CHANCE)
def test_a_refused_revocation_waits_within_its_bounds(attempts: int, jitter: float) -> None:
    wait = backoff.refused(attempts, jitter).total_seconds()
    assert 1.0 <= wait <= min(10.0 * 2 ** min(attempts - 1, 60), 900.0)


def test_the_bound_of_a_refused_revocation_doubles_to_15_minutes() -> None:
    waits = [round(backoff.refused(attempts, 0.9999999).total_seconds()) for attempts in range(1, 10)]
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]


@given(COUNT, CHANCE)
def test_a_probe_waits_within_its_bounds(failures: int, jitter: float) -> None:
    most = min(2.0 ** min(failures, 60), 30.0)
    assert most / 2 <= backoff.probe(failures, jitter) <= most


def test_the_first_probe_comes_within_a_second() -> None:
    assert backoff.probe(0, 0.0) == 0.5
    assert 0.99 < backoff.probe(0, 0.999) < 1.0


def test_delays_between_checks_for_a_missing_user_grow_to_15_minutes() -> None:
    waits = [backoff.not_found_delay(looks) for looks in range(9)]
    assert waits == [timedelta(seconds=s) for s in (1, 5, 20, 60, 300, 900, 900, 900, 900)]
