"""The waits before retries."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

_REFUSED_FIRST, _REFUSED_MAX = 10.0, 900.0
_PROBE_FIRST, _PROBE_MAX = 1.0, 30.0
_MIN_SECONDS: Final = 1.0

MAX_COUNT: Final = 2**31 - 1
"""The highest count: the protocol has an int32."""

NOT_FOUND_DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (1, 5, 20, 60, 300, 900))
"""Waits between checks for a user that AWS does not show."""


def counted(count: int) -> int:
    """Return ``count`` plus one, or the highest count."""
    return min(count + 1, MAX_COUNT)


def refused(attempts: int, jitter: float) -> timedelta:
    """Return the wait after the ``attempts``-th refused attempt: 10 s doubling to 15 min, full jitter.

    The caller draws ``jitter`` from 0 to 1. The wait is at least a second. Source: AWS Architecture Blog,
    "Exponential Backoff And Jitter".
    """
    most = min(_REFUSED_FIRST * 2.0 ** min(attempts - 1, 32), _REFUSED_MAX)
    return timedelta(seconds=max(most * jitter, _MIN_SECONDS))


def probe(failures: int, jitter: float) -> float:
    """Return the seconds until the next probe of a paused account: 1 s doubling to 30 s, half jitter."""
    most = min(_PROBE_FIRST * 2.0 ** min(failures, 32), _PROBE_MAX)
    return most * (0.5 + jitter / 2)


def not_found_delay(count: int) -> timedelta:
    """Return the wait until the next check, after the user was not found ``count`` times."""
    return NOT_FOUND_DELAYS[min(count, len(NOT_FOUND_DELAYS) - 1)]
