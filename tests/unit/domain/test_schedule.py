"""Checks when keys are rotated, and compares cron expressions with another implementation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lessor_server.domain.schedule import NEVER, Schedule, violations

SECOND = 1_000_000
HOUR = timedelta(hours=1)


def us(text: str) -> int:
    """Return an instant of UTC in microseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def times(cron: str, after: str, count: int) -> list[str]:
    """Return the next times of an expression as texts."""
    found, at = [], us(after)
    for _ in range(count):
        at = Schedule(cron=cron).next_us(at)
        found.append(datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y-%m-%d %H:%M"))
    return found


def test_a_period_counts_from_now_and_jitter_only_shortens_it() -> None:
    schedule = Schedule(HOUR)
    assert schedule.next_us(1000 * SECOND) == 4600 * SECOND
    assert schedule.next_us(0, jitter=0.5) == 3420 * SECOND
    assert schedule.next_us(0, jitter=0.999) > 3240 * SECOND


def test_without_a_schedule_there_is_no_next_time() -> None:
    assert NEVER.next_us(5) == 0
    assert not NEVER.missed(5, 10**18)


def test_a_time_is_after_now_and_at_a_full_minute() -> None:
    assert times("0 3 * * *", "2026-01-31T03:00:00", 2) == ["2026-02-01 03:00", "2026-02-02 03:00"]
    assert times("0 3 * * *", "2026-01-31T02:59:59", 1) == ["2026-01-31 03:00"]


def test_both_days_restricted_means_either() -> None:
    """As crontab(5) has it: the 13th and every Friday."""
    assert times("0 0 13 * 5", "2026-01-01T00:00:00", 4) == [
        "2026-01-02 00:00",
        "2026-01-09 00:00",
        "2026-01-13 00:00",
        "2026-01-16 00:00",
    ]


def test_sunday_is_0_and_7_and_29_february_occurs() -> None:
    """2100 is not a leap year."""
    assert times("0 3 * * 0", "2026-01-01T00:00:00", 2) == times("0 3 * * 7", "2026-01-01T00:00:00", 2)
    assert times("0 0 29 2 *", "2097-01-01T00:00:00", 1) == ["2104-02-29 00:00"]


@pytest.mark.parametrize(
    ("named", "numbered"),
    [
        ("0 3 * JAN MON", "0 3 * 1 1"),
        ("0 3 * jan-Mar,dec sun,2,Sat", "0 3 * 1-3,12 0,2,6"),
        ("*/5 * 1 * MON-FRI/2", "*/5 * 1 * 1-5/2"),
        ("0 0 * * fri-sun", "0 0 * * 5-7"),
    ],
)
def test_months_and_weekdays_have_names(named: str, numbered: str) -> None:
    assert violations(Schedule(cron=named)) == []
    assert times(named, "2026-01-01T00:00:00", 9) == times(numbered, "2026-01-01T00:00:00", 9)


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    """Draw one field: a star, a number or a range, maybe with a step, maybe two of them."""
    first = draw(st.integers(low, high - 1))
    last = draw(st.integers(first + 1, high))
    step = draw(st.sampled_from(["", "/2", "/3", "/7"]))
    one = draw(st.sampled_from(["*", f"*{step}", str(first), f"{first}-{last}", f"{first}-{last}{step}"]))
    # Where a list begins with a star, implementations differ in what that means for the other day.
    return one if "*" in one else one + draw(st.sampled_from(["", f",{last}"]))


# The same examples each time: what fails here is looked for by those who change the rule.
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.tuples(fields(0, 59), fields(0, 23), fields(1, 29), fields(1, 12), fields(0, 7)),
    st.datetimes(datetime(2024, 1, 1), datetime(2104, 1, 1)),  # noqa: DTZ001 - made UTC below
)
@example(("0", "3", "1", "1", "*/7"), datetime(2024, 1, 2))  # noqa: DTZ001
@example(("0", "3", "29", "2", "*"), datetime(2096, 3, 1))  # noqa: DTZ001
@example(("0", "3", "*/28", "2", "0"), datetime(2088, 3, 1))  # noqa: DTZ001
def test_the_times_are_those_of_cronsim(parts: tuple[str, ...], after: datetime) -> None:
    cron, after = " ".join(parts), after.replace(second=0, microsecond=0, tzinfo=UTC)
    expected = [moment.strftime("%Y-%m-%d %H:%M") for moment in islice(CronSim(cron, after), 2)]
    assert times(cron, after.strftime("%Y-%m-%dT%H:%M:%S"), 2) == expected


@pytest.mark.parametrize(
    "cron",
    [
        *("", "x", "0 3 * *", "0 3 * * * *", "60 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 32 * *"),
        *("0 3 * 13 *", "0 3 * * 8", "*/0 3 * * *", "0 6-3 * * *", "-1 3 * * *", "0 3 * mon *", "@daily"),
        *("1, 3 * * *", "0 3 jan * *", "0 3 * january *", "0 3 * * 1mon", "0 3 * * mon2", "0 3 * * ,mon"),
    ],
)
def test_a_malformed_expression_is_a_violation(cron: str) -> None:
    assert Schedule(cron=cron).next_us(0) == 0
    if cron:
        (violation,) = violations(Schedule(cron=cron))
        assert (violation.field, "is not a valid schedule" in violation.problem) == (
            "rotation_schedule",
            True,
        )


@pytest.mark.parametrize(
    ("cron", "after", "next_times"),
    [
        ("0 3 1 1 */7", "2024-01-02T00:00:00", ["2034-01-01 03:00", "2040-01-01 03:00"]),
        ("0 3 29 2 */7", "2032-03-01T00:00:00", ["2060-02-29 03:00", "2088-02-29 03:00"]),
        ("0 3 29 2 */7", "2088-03-01T00:00:00", ["2128-02-29 03:00"]),
        ("0 3 29 2 */7", "2088-02-29T02:59:59", ["2088-02-29 03:00", "2128-02-29 03:00"]),
        ("0 3 */31 7 6", "2024-01-01T00:00:00", ["2028-07-01 03:00", "2034-07-01 03:00"]),
    ],
)
def test_a_day_with_two_conditions_occurs_within_forty_years(
    cron: str, after: str, next_times: list[str]
) -> None:
    """With a star in one of the days both must match."""
    assert violations(Schedule(cron=cron)) == []
    assert times(cron, after, len(next_times)) == next_times


@pytest.mark.parametrize("weekday", range(7))
def test_a_valid_schedule_always_has_a_next_time(weekday: int) -> None:
    schedule = Schedule(cron=f"0 3 */28 2 {weekday}-{weekday}")
    assert violations(schedule) == []
    for year in range(1970, 2370):
        found = schedule.next_us(us(f"{year}-03-01T00:00:00"))
        assert 0 < found - us(f"{year}-03-01T00:00:00") < 41 * 366 * 24 * 3600 * SECOND


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30 2 */7"])
def test_a_day_that_no_month_has_is_refused(cron: str) -> None:
    (violation,) = violations(Schedule(cron=cron))
    assert "never occurs" in violation.problem


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        (Schedule(timedelta(seconds=59)), "rotation_period"),
        (Schedule(timedelta(seconds=60.5)), "rotation_period"),
        (Schedule(HOUR, "0 3 * * *"), "rotation_schedule"),
        (Schedule(HOUR, window=HOUR), "rotation_window"),
        (Schedule(window=HOUR), "rotation_window"),
        (Schedule(cron="0 3 * * *", window=timedelta(0)), "rotation_window"),
    ],
)
def test_fields_that_exclude_each_other_are_violations(schedule: Schedule, field: str) -> None:
    assert [violation.field for violation in violations(schedule)] == [field]


def test_an_expression_has_a_maximum_length() -> None:
    longest = ("0," * 200)[: 256 - len(" 3 * * *") - 1] + "0 3 * * *"
    assert violations(Schedule(cron=longest)) == []
    (violation,) = violations(Schedule(cron="0," + longest))
    assert (violation.field, violation.problem) == ("rotation_schedule", "has 258 characters")


def test_a_valid_schedule_has_no_violation() -> None:
    assert violations(Schedule(timedelta(seconds=60))) == []
    assert violations(Schedule(cron="*/15 0-6,22 1 * 0", window=HOUR)) == []


def test_a_rotation_is_missed_once_its_window_is_over() -> None:
    windowed = Schedule(cron="0 3 * * *", window=HOUR)
    assert not windowed.missed(0, 3600 * SECOND)
    assert windowed.missed(0, 3600 * SECOND + 1)
    assert not Schedule(HOUR).missed(0, 10**18)
