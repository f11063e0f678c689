"""Rotation schedules: a period, or a cron expression in UTC with a window.

The grammar of cron is that of crontab(5): minute, hour, day of the month, month, weekday (0 and 7 are
Sunday). Each is a list of ``*``, ``n`` or ``n-m``, optionally with ``/step``; months and weekdays also have
their English names, cut to three letters. As in crontab, if both days are restricted, either may match.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from typing import Final

from lessor_server.domain import durations
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import Violation, shown, too_long

MAX_CRON: Final = 256
"""The maximum length of a cron expression."""
MIN_PERIOD: Final = timedelta(seconds=60)
JITTER: Final = 0.1
"""The maximum jitter of a rotation, as a share of its period."""

_PART: Final = re.compile(r"(?:\*|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([1-9][0-9]?))?")
_RANGES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_WORD: Final = re.compile(r"\b[A-Z]+\b")
_MAX_GAP_YEARS: Final = 40
"""The longest time between two matches, in years: that of 29 February on one weekday, across a year such as
2100, which is not a leap year. An expression without a match in this time never has one.
"""
_DAY_MINUTES: Final = 24 * 60
_MINUTE_US: Final = 60_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to rotate: every ``period``, at the times of ``cron``, or never if both are unset.

    A rotation that cannot begin within ``window`` after its time waits for the next one.
    """

    period: timedelta | None = None
    cron: str = ""
    window: timedelta | None = None

    def next_us(self, now_us: int, jitter: float = 0.0) -> int:
        """Return the first time after ``now_us`` (microseconds since the epoch), or 0 for never.

        ``jitter``, drawn by the caller from 0 to 1, shortens a period by up to a tenth.
        """
        if self.period is not None:
            return now_us + int(self.period / MICROSECOND * (1 - JITTER * jitter))
        found = _times(self.cron, now_us) if self.cron else None
        return next(found, 0) if found else 0

    def missed(self, time_us: int, now_us: int) -> bool:
        """Return whether a rotation due at ``time_us`` is too late at ``now_us``."""
        return self.window is not None and now_us > time_us + self.window // MICROSECOND


NEVER: Final = Schedule()


def violations(schedule: Schedule) -> list[Violation]:
    """Return every violation; field names are those of a root's config and of a static role."""
    found = durations.violations("rotation_period", schedule.period)
    found += durations.violations("rotation_window", schedule.window)
    if schedule.period is not None and durations.SECOND <= schedule.period < MIN_PERIOD:
        problem = f"{durations.format_duration(schedule.period)} is below 1m"
        found.append(Violation("rotation_period", problem, "give at least 1m"))
    if schedule.cron:
        found += _cron_violations(schedule.cron)
        if schedule.period is not None:
            problem = "can't be combined with rotation_period"
            found.append(Violation("rotation_schedule", problem, "give one of the two"))
    elif schedule.window is not None:
        found.append(Violation("rotation_window", "needs rotation_schedule", "give one, or leave it out"))
    return found


def _cron_violations(text: str) -> list[Violation]:
    if len(text) > MAX_CRON:
        return [too_long("rotation_schedule", text, MAX_CRON)]
    times = _times(text, 0)
    if times is None:
        fix = "write minute hour day month weekday, for example 0 3 * * SUN"
        return [Violation("rotation_schedule", f"{shown(text)} is not a valid schedule", fix)]
    if next(times, 0):
        return []
    return [
        Violation("rotation_schedule", f"{shown(text)} never occurs", "name a day that exists in its months")
    ]


def _times(text: str, after_us: int) -> Iterator[int] | None:
    """Return the times of a cron expression after an instant; None if it is invalid."""
    fields = text.upper().split()
    if len(fields) != len(_RANGES):
        return None
    fields[3:] = _numbered(fields[3], _MONTHS, 1), _numbered(fields[4].replace("-SUN", "-7"), _WEEKDAYS, 0)
    sets = [_numbers(field, *bounds) for field, bounds in zip(fields, _RANGES, strict=True)]
    if not all(sets):
        return None
    minutes = [hour * 60 + minute for hour in sorted(sets[1]) for minute in sorted(sets[0])]
    return (
        moment_us
        for day_us in _days_us(fields, sets, (_EPOCH + after_us * MICROSECOND).date())
        for minute in minutes
        if (moment_us := day_us + minute * _MINUTE_US) > after_us
    )


def _days_us(fields: list[str], sets: list[frozenset[int]], first: date) -> Iterator[int]:
    """Yield the start of each matching day, from ``first`` on."""
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    weekdays = {number % 7 for number in sets[4]}
    for year in range(first.year, min(first.year + _MAX_GAP_YEARS, MAXYEAR) + 1):
        for month in sorted(sets[3]):
            before, length = calendar.monthrange(year, month)  # the weekday before the first, from Sunday on
            for number in range(1, length + 1) if either else sorted(sets[2]):
                of_month, of_week = number in sets[2], (before + number) % 7 in weekdays
                if number <= length and (of_month or of_week if either else of_month and of_week):
                    day = date(year, month, number)
                    if day >= first:
                        yield (day - _EPOCH.date()).days * _DAY_MINUTES * _MINUTE_US


def _numbered(field: str, names: tuple[str, ...], first: int) -> str:
    """Replace the names in a field by numbers, which count from ``first``."""
    numbers = {name: str(number) for number, name in enumerate(names, first)}
    return _WORD.sub(lambda match: numbers.get(match[0], match[0]), field)


def _numbers(field: str, low: int, high: int) -> frozenset[int]:
    """Return the numbers of a field; none if it is invalid or out of bounds."""
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return frozenset()
        first = int(match[1] or low)
        last = int(match[2]) if match[2] else first if match[1] and not match[3] else high
        if not low <= first <= last <= high:
            return frozenset()
        found.update(range(first, last + 1, int(match[3] or 1)))
    return frozenset(found)
