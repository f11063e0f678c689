"""When credentials are renewed, when they are replaced, and when a cache may serve them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor.refresh import (
    CACHE_LEFT,
    MAX_PAUSE,
    SDK_LEFT,
    Setback,
    Step,
    Term,
    end_on_this_clock,
    retry_pause,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
SPANS = st.timedeltas(min_value=SECOND, max_value=36 * HOUR)


def term(ttl: timedelta, *, renewable: bool = True) -> Term:
    """Return the first term of a lease that was issued at ``START``."""
    return Term(START, START + ttl, ttl, renewable)


@pytest.mark.parametrize(
    ("ttl", "renewable", "min_left", "after"),
    [
        (HOUR, True, timedelta(), 40 * MINUTE),
        (HOUR, True, SDK_LEFT, 40 * MINUTE),
        (30 * MINUTE, True, timedelta(), 20 * MINUTE),
        (30 * MINUTE, True, SDK_LEFT, 14 * MINUTE),
        (18 * MINUTE, True, SDK_LEFT, 6 * MINUTE),
        (12 * HOUR, True, SDK_LEFT, 8 * HOUR),
        (12 * HOUR, False, SDK_LEFT, 11 * HOUR + 40 * MINUTE),
        (HOUR, False, timedelta(), 40 * MINUTE),
        (15 * MINUTE, False, timedelta(), 10 * MINUTE),
    ],
)
def test_credentials_are_refreshed_after_two_thirds_or_in_time_for_an_sdk(
    ttl: timedelta, renewable: bool, min_left: timedelta, after: timedelta
) -> None:
    one = term(ttl, renewable=renewable)
    assert one.refresh_time(min_left) == START + after
    assert one.next_step(START + after - SECOND, min_left) is Step.KEEP
    assert one.next_step(START + after, min_left) is (Step.RENEW if renewable else Step.ISSUE)


@given(ttl=SPANS, renewable=st.booleans(), min_left=st.sampled_from([timedelta(), SDK_LEFT, CACHE_LEFT]))
def test_credentials_are_refreshed_between_a_third_of_their_term_and_its_end(
    ttl: timedelta, renewable: bool, min_left: timedelta
) -> None:
    one = term(ttl, renewable=renewable)
    assert START + ttl / 3 - SECOND <= one.refresh_time(min_left) < one.end


def test_credentials_that_have_ended_are_replaced_even_if_their_lease_was_renewable() -> None:
    assert term(HOUR).next_step(START + HOUR) is Step.ISSUE


def test_a_renewal_that_was_cut_to_the_maximum_is_the_last() -> None:
    later = START + 40 * MINUTE
    full = term(HOUR).after_renewal(later, later + HOUR, HOUR, renewable=True)
    assert full.next_step(full.refresh_time()) is Step.RENEW
    cut = term(HOUR).after_renewal(later, later + 30 * MINUTE, 30 * MINUTE, renewable=True)
    assert cut.next_step(cut.refresh_time()) is Step.ISSUE
    refused = term(HOUR).after_renewal(later, later + HOUR, HOUR, renewable=False)
    assert refused.next_step(refused.refresh_time()) is Step.ISSUE


def test_a_lost_lease_is_replaced_now_and_a_denied_renewal_later() -> None:
    now = START + 40 * MINUTE
    one = term(HOUR)
    assert one.after_setback(Setback.AWAY, now) == one
    assert one.after_setback(Setback.LOST, now).next_step(now) is Step.ISSUE
    denied = one.after_setback(Setback.DENIED, now)
    assert denied.end == one.end
    assert denied.next_step(now) is Step.ISSUE
    assert term(12 * HOUR).after_setback(Setback.DENIED, now).next_step(START + 8 * HOUR) is Step.KEEP


@pytest.mark.parametrize(
    ("now", "served"),
    [
        (START, True),
        (START + 40 * MINUTE, True),
        (START + 40 * MINUTE + SECOND, False),
        (START - 20 * SECOND, True),
        (START - HOUR, False),
    ],
)
def test_a_cache_serves_credentials_with_20_minutes_left_and_none_from_the_future(
    now: datetime, served: bool
) -> None:
    assert term(HOUR).is_servable(now) is served


def test_the_end_is_the_servers_unless_the_clocks_differ() -> None:
    received = START + 2 * SECOND
    assert end_on_this_clock(START, received, HOUR, START + HOUR + SECOND) == START + HOUR + SECOND
    assert end_on_this_clock(START, received, HOUR, START + 2 * HOUR) == START + HOUR
    assert end_on_this_clock(START, received, HOUR, START) == START + HOUR
    # The server waited until the key was usable, so the lifetime began long before the answer.
    assert end_on_this_clock(START, START + 2 * MINUTE, HOUR, START + HOUR) == START + HOUR


def test_pauses_double_up_to_half_a_minute_and_vary() -> None:
    assert [retry_pause(tries, 0) for tries in range(4)] == [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]
    assert retry_pause(10**6, 0) == MAX_PAUSE
    assert retry_pause(10**6, 1) == MAX_PAUSE / 2
