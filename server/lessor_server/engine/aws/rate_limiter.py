"""Rate limit, concurrency, priority and pausing of AWS calls, per account and endpoint.

A rate limiter is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371). Of a set rate
96.5 % is the refill and 1.5 % the burst: no second ever holds more calls than the rate, also where some
are 20 ms later on their way than others. Without a set
rate the limiter adapts: the rate falls by a third when AWS throttles, and rises again step by step
(additive increase, multiplicative decrease: Chiu & Jain, 1989). Calls that wait are served by
priority, then in order; their number is limited, and none waits longer than ``MAX_WAIT_SECONDS``. Those of
expiries wait until several can be sent, since each time that the loop wakes has its cost, and leave a part
of the burst to the calls of callers.

It is paused while AWS does not answer: a call then fails immediately. If several replicas use one store,
``shared_rate`` replaces the rate by this replica's share of it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from lessor_server.domain.errors.base import AwsUnavailable, RateLimiterFull
from lessor_server.engine.aws.shared_rate import LATE_SECONDS, SharedRate

MAX_WAIT_SECONDS = 10.0
REFILL, BURST = 0.965, 0.015
RESERVED, GROUPED = 0.3, 0.25
"""The parts of the burst that expiries leave to callers, and that their own calls gather."""
START_RATE, MIN_RATE = 1000.0, 1.0
DECREASE, INCREASE, STEP_SECONDS = 2 / 3, 0.02, 1.0
"""Throttling cuts the rate to two thirds, at most once in a step; a step without it adds 2 % of the start."""


CLASHES, CLASHES_WITHIN, SERIAL_FOR = 3, 60.0, 3600.0
"""The number of ConcurrentModifications, the seconds they count for, and the seconds of serial calls."""


@dataclass(slots=True)
class ConflictCounter:
    """Recent ConcurrentModifications of an account; times are the loop's."""

    seen: deque[float] = field(default_factory=lambda: deque(maxlen=CLASHES))
    serial_until: float = 0.0

    def record(self, now: float) -> None:
        """Record one more."""
        self.seen.append(now)
        if len(self.seen) == CLASHES and now - self.seen[0] <= CLASHES_WITHIN:
            self.serial_until = now + SERIAL_FOR


class Priority(IntEnum):
    """The order in which waiting calls are sent: checks come last."""

    ASKED = 0
    ISSUE = 1
    EXPIRY = 2
    CHECK = 3


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Limits: calls a second (None: adaptive), calls in flight, calls waiting."""

    rate: float | None = None
    in_flight: int = 64
    queue: int = 2000


class RateLimiter:
    """The calls to one account at one endpoint."""

    def __init__(self, account: str, rate_limit: RateLimit, shared: SharedRate | None = None) -> None:
        """Create it with the limits of ``rate_limit``, not paused; ``shared`` is a share of its rate."""
        self.account = account
        self.shared = shared
        if shared is not None:
            shared.changed = self._admit_waiting
        self._rate_limit = rate_limit
        self._set_rate(rate_limit.rate or START_RATE)
        self._stepped = 0.0
        self._next = 0.0
        self._in_flight = 0
        self._queue: list[tuple[int, int, asyncio.Future[float]]] = []
        self._left = 0
        """How many of the queue have given up."""
        self._tickets = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.conflicts = ConflictCounter()
        self.paused_for = ""
        self.retry_in = 0.0

    # --- whether ----------------------------------------------------------------------------------------

    def require_open(self) -> None:
        """Raise ``AwsUnavailable`` while the account is paused."""
        if self.paused_for:
            raise AwsUnavailable(
                f"AWS does not answer for this account ({self.paused_for}); it is being probed",
                retry_in=self.retry_in,
            )

    def pause(self, why: str, retry_in: float) -> None:
        """Pause; the next probe is in ``retry_in`` seconds."""
        self.paused_for, self.retry_in = why, retry_in

    def resume(self) -> None:
        """End the pause."""
        self.paused_for, self.retry_in = "", 0.0

    # --- how fast ---------------------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """Return the current rate, in calls a second."""
        return self._rate if self.shared is None else self.shared.share

    @property
    def waiting(self) -> int:
        """Return how many calls wait."""
        return len(self._queue) - self._left

    def throttled(self) -> None:
        """Record that AWS throttled a call; an adaptive rate falls."""
        now = asyncio.get_running_loop().time()
        if self._rate_limit.rate is None and now - self._stepped >= STEP_SECONDS:
            self._set_rate(max(self._rate * DECREASE, MIN_RATE))
            self._stepped = now

    def _recover(self, now: float) -> None:
        if self._rate < START_RATE and self._rate_limit.rate is None and now - self._stepped >= STEP_SECONDS:
            self._set_rate(min(self._rate + INCREASE * START_RATE, START_RATE))
            self._stepped = now

    def _set_rate(self, rate: float) -> None:
        self._rate = rate
        self._interval = 1 / (rate * REFILL)
        self._slack = max(rate * BURST - 1, 0) * self._interval

    def count_waiting(self) -> Counter[Priority]:
        """Count the calls that wait, by priority."""
        return Counter(Priority(priority) for priority, _, future in self._queue if not future.done())

    # --- in which order ---------------------------------------------------------------------------------

    def release(self) -> None:
        """Give a slot back: the next call is sent."""
        self._in_flight -= 1
        if self._queue:
            self._admit_waiting()

    def try_acquire(self, priority: Priority) -> bool:
        """Take a slot if one is free now, without the cost of a coroutine; ``release`` gives it back."""
        now = asyncio.get_running_loop().time()
        if self._queue or self._wait_seconds(priority, now) > 0:
            return False
        if self._in_flight >= self._rate_limit.in_flight:
            return False
        self._admit(now)
        return True

    async def acquire(self, priority: Priority) -> None:
        """Wait for a slot, which ``release`` gives back.

        Raises:
            RateLimiterFull: The queue is full, or this call waited too long.
        """
        while not self.try_acquire(priority):
            admitted = await self._wait_for_slot(priority)
            now = asyncio.get_running_loop().time()
            if self.shared is None:
                return
            if now - admitted <= LATE_SECONDS:
                self.shared.note_sent(admitted, now)
                return
            self.release()

    async def _wait_for_slot(self, priority: Priority) -> float:
        """Wait in the queue for a slot; return the loop's time at which it was given."""
        if self.waiting >= self._rate_limit.queue:
            raise self._full()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._tickets += 1
        heapq.heappush(self._queue, (priority, self._tickets, future))
        self._admit_waiting()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return await future
        except TimeoutError:
            self._give_up(future)
            raise self._full() from None
        except asyncio.CancelledError:
            self._give_up(future)
            raise

    def _give_up(self, future: asyncio.Future[float]) -> None:
        """Give a slot that came too late for its call to the next call; forget calls that came to nothing."""
        if not future.cancelled():
            self._in_flight -= 1
            self._admit_waiting()
            return
        self._left += 1
        if self._left > len(self._queue) // 2:  # seldom, as it takes a step for each
            queued = len(self._queue)
            self._queue = [one for one in self._queue if not one[2].done()]
            heapq.heapify(self._queue)
            # Some of these have not noticed yet that they gave up: each is going to add itself.
            self._left -= queued - len(self._queue)

    def _admit_waiting(self, *, gathered: bool = False) -> None:
        """Admit the calls that may be sent now, and set the timer for the next.

        Those of expiries wait for more of them, unless these have ``gathered``.
        """
        now = asyncio.get_running_loop().time()
        while self._queue and self._in_flight < self._rate_limit.in_flight:
            priority, _, future = self._queue[0]
            if future.done():  # gave up waiting
                heapq.heappop(self._queue)
                self._left -= 1
                continue
            wait = self._wait_seconds(priority, now)
            grouped_wait = wait + self._group_seconds(priority)
            if wait > 0 or (grouped_wait > 0 and not gathered):
                self._schedule(now + grouped_wait)
                return
            gathered = True
            heapq.heappop(self._queue)
            self._admit(now, waited=True)
            future.set_result(now)

    def _schedule(self, at: float) -> None:
        if not math.isfinite(at) or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._admit_waiting(gathered=True)

    def _wait_seconds(self, priority: int, now: float) -> float:
        """Return the seconds until the bucket has a token for a call of this priority."""
        if self.shared is not None:
            return self.shared.wait_seconds(now, explicit=priority == Priority.ASKED)
        self._recover(now)
        usable = self._slack if priority <= Priority.ISSUE else self._slack * (1 - RESERVED)
        return self._next - usable - now

    def _group_seconds(self, priority: int) -> float:
        """Return how long calls of this priority gather; those under a share have a schedule of their own."""
        return 0.0 if priority <= Priority.ISSUE or self.shared is not None else self._slack * GROUPED

    def _admit(self, now: float, *, waited: bool = False) -> None:
        self._in_flight += 1
        if self.shared is not None:
            self.shared.admit(now, waited=waited)
        else:
            self._next = max(self._next, now) + self._interval

    def _full(self) -> RateLimiterFull:
        wait = self.waiting / max(self.rate, MIN_RATE)
        return RateLimiterFull(
            "too many AWS calls are waiting", subject=self.account, retry_in=max(wait, 1.0)
        )


class RateLimiters:
    """All rate limiters, created on first use."""

    def __init__(self, rate_limit: RateLimit, share: Callable[[str], SharedRate] | None = None) -> None:
        """Give each rate limiter the same ``rate_limit``; ``share`` creates its share of a set rate."""
        self._rate_limit = rate_limit
        self._share = share if rate_limit.rate is not None else None
        self._limiters: dict[tuple[str, str], RateLimiter] = {}

    def limiter(self, account: str, endpoint: str) -> RateLimiter:
        """Return the rate limiter of an account at an endpoint."""
        key = (account, endpoint)
        limiter = self._limiters.get(key)
        if limiter is None:
            shared = self._share(f"{account} {endpoint}".strip()) if self._share is not None else None
            limiter = self._limiters[key] = RateLimiter(account, self._rate_limit, shared)
        return limiter

    def sharing(self) -> list[tuple[SharedRate, int]]:
        """Return the shares of all rate limiters, each with how many calls wait for it."""
        limiters = self._limiters.values()
        return [(one.shared, one.waiting) for one in limiters if one.shared is not None]

    def forget(self, account: str) -> None:
        """Delete an account's rate limiters; calls that wait in one continue."""
        self._limiters = {key: limiter for key, limiter in self._limiters.items() if key[0] != account}

    def count_waiting(self) -> Counter[Priority]:
        """Count the calls that wait, by priority."""
        return sum((limiter.count_waiting() for limiter in self._limiters.values()), Counter())

    def paused(self) -> list[RateLimiter]:
        """Return the paused rate limiters."""
        return [limiter for limiter in self._limiters.values() if limiter.paused_for]
