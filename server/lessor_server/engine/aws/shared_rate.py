"""This replica's share of an account's rate, which the account's rate limiter uses in place of the rate.

A share is valid for ``SHARE_SECONDS`` of boot-time clock from when it was asked for. Without a valid share
only the calls of explicit revocations are sent, one a second.

Two rules hold for each call. By the schedule (a token bucket) calls are evenly spaced, at the share less its
margin. If a call waits while its turn passes, because the event loop is late, the schedule does not move, and
the next calls are sent a little faster until they have caught up with it. By the window, no second has more
calls than the share: the times of the last calls are kept, so that this holds exactly, however late the event
loop is. The window is a little shorter than the schedule's, so that what was late once does not stay late.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.rate_shares import MARGIN, SHARE_SECONDS, GrantedShare, ShareRequest

SETTLE_SECONDS: Final = 1.05
"""How long calls that were sent under a share still count: the second of the rate, and some more."""
LATE_SECONDS: Final = 0.25
"""A call that begins later than this after it was admitted is admitted again: the process was stopped."""
BURST: Final = 0.03
"""The part of the share that may be sent at the same time, after the event loop was busy. With more of it
calls arrive less evenly: 309 of 300 in a second were measured with 0.1."""
CATCH_UP_SECONDS: Final = 0.25
"""Turns that passed at most so long ago, while calls waited for them, are still used."""
CATCH_UP_SPEED: Final = 1.1
"""How much faster calls are sent that use such turns: all at the same time would arrive less evenly."""
CATCH_UP_MARGIN: Final = 0.01
"""The part of the margin by which the window is shorter than the schedule's."""
DEMAND_SECONDS: Final = 5.0
DEMAND_SAMPLE_SECONDS: Final = 1.0
QUEUE_SECONDS: Final = 0.25
"""A demand is large enough to send the calls that wait within this time. Callers who wait for an answer
before they call again have a short queue, however small the share is."""
IDLE_SECONDS: Final = 60.0
"""After so long without a call no share is asked for."""
MIN_RATE: Final = 1.0
"""Calls a second of explicit revocations without a valid share."""
WANT_SECONDS: Final = 1.0
"""A sign is asked for no more often than this. If none of them brings a share for so long, explicit
revocations are sent without one."""


@dataclass(frozen=True, slots=True)
class _Past:
    """A share that is no longer used, and the boot-time clock when it ended."""

    share: float
    ended_us: int


class SharedRate:
    """The share of one account; instants are the loop's time, except those of the boot-time clock."""

    def __init__(
        self, account: str, rate: float, boot_us: Callable[[], int], want: Callable[[], None]
    ) -> None:
        """Begin without a share; ``want`` is called when a call waits for one."""
        self.account = account
        self.changed: Callable[[], None] = lambda: None
        """Called when a new share may let waiting calls go."""
        self._rate = rate
        self._boot_us = boot_us
        self._want = want
        self._granted = GrantedShare(account, 0.0, 0.0, MARGIN)
        self._until_us = 0
        self._past: deque[_Past] = deque()
        self._times: deque[float] = deque()
        self._next = self._next_fast = 0.0
        """When the next call is due by the schedule, and when one may be sent at the speed of catching up."""
        self._admitted = 0
        self._samples: deque[tuple[float, int]] = deque([(asyncio.get_running_loop().time(), 0)])
        self._last_wanted = asyncio.get_running_loop().time()
        self._wanted_at = -math.inf
        self._missing_since = math.inf

    # --- the share ---------------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Return the valid share in calls a second; 0 without one."""
        return self._granted.share if self._boot_us() < self._until_us else 0.0

    @property
    def is_missing(self) -> bool:
        """Return whether a call waits, or waited, for a share since the last one was granted."""
        return self._missing_since < math.inf

    def accept(self, granted: GrantedShare, asked_us: int) -> None:
        """Use a share that was asked for at ``asked_us`` of the boot-time clock.

        What the replica could send before stays in ``request`` for ``SETTLE_SECONDS``.
        """
        now_us = self._boot_us()
        self._past.append(_Past(self._granted.share, min(now_us, self._until_us)))
        self._granted, self._until_us = granted, asked_us + int(SHARE_SECONDS * 1e6)
        if granted.share:
            self._missing_since, self._wanted_at = math.inf, -math.inf
            # No call waits longer than under this share; that of before may have been much smaller.
            due = asyncio.get_running_loop().time() + 1 / (granted.share * (1 - granted.margin))
            self._next, self._next_fast = min(self._next, due), min(self._next_fast, due)
        self.changed()

    def request(self, waiting: int) -> ShareRequest:
        """Return what to ask for, with ``waiting`` calls in the queue."""
        now = asyncio.get_running_loop().time()
        using = self._find_recent(self._boot_us())
        return ShareRequest(self.account, self._rate, self._demand(now, waiting), using)

    def let_lapse(self, waiting: int) -> bool:
        """Return whether no call has asked for the account for a minute; its share is then not renewed."""
        idle = not waiting and asyncio.get_running_loop().time() - self._last_wanted > IDLE_SECONDS
        if idle:
            self._missing_since = math.inf
        return idle

    def _find_recent(self, now_us: int) -> float:
        """Return the largest share that is valid or ended within ``SETTLE_SECONDS``."""
        ended_us = now_us - int(SETTLE_SECONDS * 1e6)
        while self._past and self._past[0].ended_us <= ended_us:
            self._past.popleft()
        last = self._granted.share if self._until_us > ended_us else 0.0
        return max(last, *(one.share for one in self._past), 0.0)

    def _demand(self, now: float, waiting: int) -> float:
        """Return the calls a second of the last 5 s, and the rate that would send all that wait soon."""
        if now - self._samples[-1][0] >= DEMAND_SAMPLE_SECONDS:
            self._samples.append((now, self._admitted))
        while len(self._samples) > 1 and now - self._samples[1][0] >= DEMAND_SECONDS:
            self._samples.popleft()
        since, admitted = self._samples[0]
        return (self._admitted - admitted) / max(now - since, 1.0) + waiting / QUEUE_SECONDS

    # --- calls -------------------------------------------------------------------------------------------

    def wait_seconds(self, now: float, *, explicit: bool) -> float:
        """Return the seconds until the next call may be sent; infinity without a share that allows it.

        ``explicit`` calls are those of explicit revocations.
        """
        self._last_wanted = now
        share = self.share
        if not share:
            return self._wait_for_share(now) if explicit else self._want_share(now)
        most = max(int(share), 1)
        window = self._window(share, max(self._granted.margin - CATCH_UP_MARGIN, 0.0))
        while self._times and self._times[0] <= now - max(window, SETTLE_SECONDS):
            self._times.popleft()
        by_window = self._times[-most] + window - now if len(self._times) >= most else 0.0
        slack = max(share * BURST - 1, 0.0) * window / most
        return max(by_window, max(self._next, self._next_fast) - slack - now)

    def _window(self, share: float, margin: float) -> float:
        """Return the seconds in which the whole calls of a share are sent."""
        return max(1.0, max(int(share), 1) / share) / (1 - margin)

    def _want_share(self, now: float) -> float:
        """Ask for a share; return infinity."""
        self._missing_since = min(self._missing_since, now)
        if now - self._wanted_at >= WANT_SECONDS:
            self._wanted_at = now
            self._want()
        return math.inf

    def _wait_for_share(self, now: float) -> float:
        """Return the seconds until an explicit revocation may be sent without a share."""
        self._want_share(now)
        last = self._times[-1] if self._times else -math.inf
        return max(last + 1 / MIN_RATE, self._missing_since + WANT_SECONDS) - now

    def admit(self, now: float, *, waited: bool = False) -> None:
        """Record that a call is sent; one that ``waited`` may use a turn that has passed."""
        self._admitted += 1
        self._times.append(now)
        share = self.share
        interval = 1 / MIN_RATE if not share else 1 / (share * (1 - self._granted.margin))
        self._next = max(self._next, now - (CATCH_UP_SECONDS if waited else 0.0)) + interval
        self._next_fast = max(self._next_fast, now) + interval / CATCH_UP_SPEED

    def note_sent(self, admitted: float, now: float) -> None:
        """Count a call that was ``admitted`` as one of ``now``, when its task continued on a busy loop."""
        index = len(self._times) - 1
        while index >= 0 and self._times[index] > admitted:
            index -= 1
        if index >= 0 and self._times[index] == admitted:
            self._times[index] = now
