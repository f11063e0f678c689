"""How fast, how many at once and whether at all: one lane for each AWS account and endpoint.

A lane is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371): each call gets
the next free instant, so waiting costs no polling. Of a set rate 98 % is the refill and 2 % the burst,
so that no second ever holds more calls than the rate. A lane takes a bounded number of waiting calls,
and none waits for more than ``LONGEST_WAIT_SECONDS``.

A lane is paused while AWS does not answer: whoever is asked to call then hears so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lessor_server.domain.errors import AwsUnavailable, PacerFull

LONGEST_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of a lane: calls a second, calls in flight, calls waiting."""

    rate: float = 1000.0
    in_flight: int = 64
    queue: int = 2000


class Lane:
    """The calls to one account at one endpoint."""

    def __init__(self, account: str, pace: Pace) -> None:
        """Open a lane that keeps ``pace``."""
        self.account = account
        self._pace = pace
        self._interval = 1 / (pace.rate * 0.98)
        self._slack = max(pace.rate * 0.02 - 1, 0) * self._interval
        self._next = 0.0
        self._waiting = 0
        self._flight = asyncio.Semaphore(pace.in_flight)
        self.paused_for = ""
        self.retry_in = 0.0

    def require_open(self) -> None:
        """Raise ``AwsUnavailable`` while the lane is paused."""
        if self.paused_for:
            raise AwsUnavailable(
                f"AWS does not answer for this account ({self.paused_for}); it is being probed",
                retry_in=self.retry_in,
            )

    def pause(self, why: str, retry_in: float) -> None:
        """Stop the lane; the next probe goes out in ``retry_in`` seconds."""
        self.paused_for, self.retry_in = why, retry_in

    def resume(self) -> None:
        """Open the lane again."""
        self.paused_for, self.retry_in = "", 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this call's instant and for room in flight; hold the room while the call runs.

        Raises:
            PacerFull: More calls wait than the lane takes, or this one waited too long.
        """
        if self._waiting >= self._pace.queue:
            raise self._full()
        wait = self._book()
        self._waiting += 1
        try:
            if wait > 0:
                await asyncio.sleep(wait)
            if self._flight.locked():
                await self._room(LONGEST_WAIT_SECONDS - wait)
            else:
                await self._flight.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._flight.release()

    def _book(self) -> float:
        """Take the next free instant; return the seconds until then."""
        now = asyncio.get_running_loop().time()
        mine = max(self._next, now)
        wait = mine - self._slack - now
        if wait > LONGEST_WAIT_SECONDS:
            raise self._full()
        self._next = mine + self._interval
        return wait

    async def _room(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._flight.acquire()
        except TimeoutError:
            raise self._full() from None

    def _full(self) -> PacerFull:
        wait = self._next - asyncio.get_running_loop().time()
        return PacerFull("too many AWS calls are waiting", subject=self.account, retry_in=max(wait, 1.0))


class Pacer:
    """All lanes, made when first asked for."""

    def __init__(self, pace: Pace) -> None:
        """Give each lane the same ``pace``."""
        self._pace = pace
        self._lanes: dict[tuple[str, str], Lane] = {}

    def lane(self, account: str, endpoint: str) -> Lane:
        """Return the lane of an account at an endpoint."""
        key = (account, endpoint)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(account, self._pace)
        return lane

    def paused(self) -> list[Lane]:
        """Return the lanes that are paused."""
        return [lane for lane in self._lanes.values() if lane.paused_for]
