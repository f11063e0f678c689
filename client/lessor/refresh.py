"""When credentials are renewed, when new ones are issued, and for how long: rules over times, no I/O.

A lease is renewed first, and issued again last: the key of an IAM user works as long as its lease is renewed,
and each issue creates a user. All times are those of one clock, the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

SDK_LEFT: Final = timedelta(minutes=16)
"""How long credentials must be valid when an SDK gets them.

botocore asks again at each request while less than 15 minutes are left (``botocore.credentials``,
``_advisory_refresh_timeout``); one minute is added for clocks and slow answers.
"""
ISSUE_LEFT: Final = timedelta(minutes=20)
"""How long before their end credentials that can't be renewed are replaced, at the earliest."""
CACHE_LEFT: Final = timedelta(minutes=20)
"""How long credentials must be valid to be served from a cache."""
MIN_CACHED_TTL: Final = timedelta(minutes=30)
"""The shortest lifetime that is cached: with less, each call of an SDK would need new credentials."""
WARN_LEFT: Final = timedelta(minutes=5)
"""How long before the end a user is warned if the credentials can't be replaced."""
CLOCK_TOLERANCE: Final = timedelta(seconds=30)
"""By how much the server's clock may differ from the caller's before the caller's alone counts."""
FIRST_PAUSE: Final = timedelta(seconds=1)
MAX_PAUSE: Final = timedelta(seconds=30)
NO_TIME: Final = timedelta()


class Step(Enum):
    """What to do with credentials now."""

    KEEP = "keep"
    RENEW = "renew"
    ISSUE = "issue"


class Setback(Enum):
    """Why a call did not succeed, as far as it decides what happens next."""

    AWAY = "away"
    """The server can't be reached, or is busy: the same call may succeed later."""
    LOST = "lost"
    """The lease has ended or was revoked: only new credentials help."""
    DENIED = "denied"
    """The caller may not do this: the credentials stay valid until they end."""


@dataclass(frozen=True, slots=True)
class Term:
    """The time from the issue of credentials, or from their last renewal, to their end.

    Attributes:
        start: When the issue or the renewal was requested.
        end: When the credentials end.
        ttl: The lifetime that was granted at the issue; a renewal asks for it again.
        renewable: Whether a renewal can move the end.
    """

    start: datetime
    end: datetime
    ttl: timedelta
    renewable: bool

    def left(self, now: datetime) -> timedelta:
        """Return how long the credentials are still valid; negative if they have ended."""
        return self.end - now

    def refresh_time(self, min_left: timedelta = NO_TIME) -> datetime:
        """Return when to renew the credentials or to replace them.

        They are renewed after two thirds of the term, and replaced 20 minutes before the end or after two
        thirds, whichever is later. Both happen earlier if less than ``min_left`` would be left, but not
        before a third of the lifetime. After a renewal that was cut, this may be in the past.
        """
        whole = self.end - self.start
        left = whole / 3 if self.renewable else min(whole / 3, ISSUE_LEFT)
        return self.end - min(max(left, min_left), self.ttl * 2 / 3)

    def next_step(self, now: datetime, min_left: timedelta = NO_TIME) -> Step:
        """Return what to do at ``now``: nothing, a renewal, or an issue."""
        if now < self.refresh_time(min_left):
            return Step.KEEP
        return Step.RENEW if self.renewable and now < self.end else Step.ISSUE

    def after_renewal(self, start: datetime, end: datetime, granted: timedelta, *, renewable: bool) -> Term:
        """Return the term after a renewal; one that was cut to the lease's maximum is the last.

        Args:
            start: When the renewal was requested.
            end: The new end.
            granted: The lifetime that the server granted from the renewal on.
            renewable: What the server answered.
        """
        return replace(self, start=start, end=end, renewable=renewable and granted >= self.ttl)

    def after_setback(self, setback: Setback, now: datetime) -> Term:
        """Return the term after a renewal that did not succeed."""
        match setback:
            case Setback.AWAY:
                return self
            case Setback.LOST:
                return replace(self, end=min(self.end, now), renewable=False)
            case Setback.DENIED:
                return replace(self, renewable=False)

    def is_servable(self, now: datetime, min_left: timedelta = CACHE_LEFT) -> bool:
        """Return whether a cache may serve the credentials: from their start until near their end."""
        return now >= self.start - CLOCK_TOLERANCE and self.left(now) >= min_left


def end_on_this_clock(
    sent: datetime, received: datetime, granted: timedelta, expire_time: datetime
) -> datetime:
    """Return when credentials end on the caller's clock.

    This is the server's ``expire_time`` if it fits the time of the call and the ``granted`` lifetime. If the
    clocks differ, the lifetime counts from when the request was sent, which is never too late.
    """
    fits = sent + granted - CLOCK_TOLERANCE <= expire_time <= received + granted + CLOCK_TOLERANCE
    return expire_time if fits else sent + granted


def retry_pause(tries: int, chance: float) -> timedelta:
    """Return how long to wait after failed try number ``tries``, counted from 0.

    The pause doubles from 1 s to 30 s; ``chance``, 0 to 1, shortens it by up to a half, so that many callers
    don't return at the same time.
    """
    pause = min(FIRST_PAUSE * float(1 << min(tries, 10)), MAX_PAUSE)
    return pause * (1 - chance / 2)
