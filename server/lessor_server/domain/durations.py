"""Durations: the rule for those in requests, and their format in messages."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Final

from lessor_server.domain.errors.base import Violation

MICROSECOND: Final = timedelta(microseconds=1)
SECOND: Final = timedelta(seconds=1)
SECOND_US: Final = SECOND // MICROSECOND
MAX_DURATION: Final = timedelta(days=3650)
"""Ten years: a longer duration is a mistake."""
MAX_DURATION_US: Final = MAX_DURATION // MICROSECOND


@lru_cache(maxsize=256)
def format_duration(span: timedelta) -> str:
    """Return ``span`` in readable form, ``1h30m`` or ``15m``, with fractions of a second."""
    if span < timedelta(0):
        return f"-{format_duration(-span)}"
    whole, fraction = divmod(span // MICROSECOND, SECOND_US)
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    if fraction:
        return f"{text}{seconds}.{fraction:06}".rstrip("0") + "s"
    return f"{text}{seconds}s" if seconds or not text else text


def violations(field: str, span: timedelta | None) -> list[Violation]:
    """Return the violations of ``span``: whole seconds, from one second to ten years, or ``None`` (unset)."""
    if span is None:
        return []
    if span < SECOND:
        return [
            Violation(
                field, f"{format_duration(span)} is below 1s", "give at least 1s, or leave the field out"
            )
        ]
    if span > MAX_DURATION:
        return [
            Violation(
                field,
                f"{format_duration(span)} is above ten years",
                f"give at most {format_duration(MAX_DURATION)}",
            )
        ]
    if span % SECOND:
        return [
            Violation(
                field, f"{format_duration(span)} is not a number of whole seconds", "give whole seconds"
            )
        ]
    return []


def order_violations(
    field: str, span: timedelta | None, bound: timedelta | None, name: str
) -> list[Violation]:
    """Return a violation if ``span`` is above ``bound``, which the message calls ``name``."""
    if span is None or bound is None or span <= bound:
        return []
    problem = f"{format_duration(span)} is above {name}, {format_duration(bound)}"
    return [Violation(field, problem, f"give at most {format_duration(bound)}")]
