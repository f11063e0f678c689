"""Checks who goes first in a lane, how a lane finds its rate, and that no turn is ever lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from lessor_server.domain.errors.base import RateLimiterFull
from lessor_server.engine.aws.rate_limiter import (
    MAX_WAIT_SECONDS,
    MIN_RATE,
    START_RATE,
    Priority,
    RateLimit,
    RateLimiter,
)
from tests.support.virtual_loop import run, virtual

RANKS = (Priority.EXPIRY, Priority.ISSUE, Priority.ASKED)


async def throttled(limiter: RateLimiter, times: int, apart: float) -> None:
    """Have AWS throttle the lane so often, so many seconds apart."""
    for _ in range(times):
        await asyncio.sleep(apart)
        limiter.throttled()


async def calls(limiter: RateLimiter, count: int, begun: list[float]) -> None:
    """Ask for turns one after another and note when each came."""
    for _ in range(count):
        async with limiter.slot():
            begun.append(asyncio.get_running_loop().time())


# --- order -----------------------------------------------------------------------------------------------


@virtual
async def test_what_a_person_asked_for_goes_first_then_issues_then_expiries() -> None:
    """Whoever came first, a lane serves by priority, and callers of one priority in their order."""
    limiter = RateLimiter("a", RateLimit(rate=10, in_flight=1))
    served: list[tuple[Priority, int]] = []

    async def call(priority: Priority, number: int) -> None:
        async with limiter.slot(priority):
            served.append((priority, number))

    async with asyncio.TaskGroup() as group, limiter.slot():
        for number in range(4):
            for priority in RANKS:
                group.create_task(call(priority, number))
                await asyncio.sleep(0.01)
    assert served == [(priority, number) for priority in sorted(RANKS) for number in range(4)]


@virtual
async def test_a_flood_of_expiries_delays_nobody_else() -> None:
    """With a thousand expiries waiting, a caller who asks is served by the next turn."""
    limiter = RateLimiter("a", RateLimit(rate=200, in_flight=10))
    loop = asyncio.get_running_loop()

    async def expiry() -> None:
        with suppress(RateLimiterFull):
            async with limiter.slot(Priority.EXPIRY):
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(expiry())
        for priority in (Priority.ASKED, Priority.ISSUE):
            await asyncio.sleep(1)
            asked = loop.time()
            async with limiter.slot(priority):
                assert loop.time() - asked <= 0.02


@pytest.mark.parametrize("seed", range(10))
def test_a_turn_that_comes_as_its_caller_gives_up_is_not_lost(seed: int) -> None:
    """When the wait ends at the very moment the turn comes, the next one in the queue has it."""

    async def race() -> None:
        limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1))
        loop = asyncio.get_running_loop()

        async def holder() -> None:
            async with limiter.slot():
                await asyncio.sleep(MAX_WAIT_SECONDS)

        async def waiter() -> None:
            with suppress(RateLimiterFull):
                async with limiter.slot():
                    pass

        async with asyncio.TaskGroup() as group:
            group.create_task(holder())
            for _ in range(5):
                group.create_task(waiter())
        start = loop.time()
        async with limiter.slot():
            assert loop.time() - start < 0.01

    run(race(), seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_turn_whose_caller_is_cancelled_goes_to_the_next(seed: int) -> None:
    """A caller who leaves as its turn comes keeps nobody waiting."""

    async def race() -> None:
        limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1))
        begun: list[float] = []
        async with asyncio.TaskGroup() as group:
            async with limiter.slot():
                leaving = group.create_task(calls(limiter, 1, []))
                await asyncio.sleep(0)
                staying = group.create_task(calls(limiter, 1, begun))
                await asyncio.sleep(1)
            leaving.cancel()
            await asyncio.wait([staying])
        assert begun[0] < 1.1

    run(race(), seed)


# --- the rate --------------------------------------------------------------------------------------------


@virtual
async def test_a_rate_that_was_not_set_comes_down_by_a_third_when_aws_throttles() -> None:
    """Each throttled second takes a third of the rate, and many answers in one second count once."""
    limiter = RateLimiter("a", RateLimit())
    assert limiter.rate == START_RATE
    await throttled(limiter, 1, 2.0)
    assert limiter.rate == pytest.approx(START_RATE * 2 / 3)
    await throttled(limiter, 10, 0.05)
    assert limiter.rate == pytest.approx(START_RATE * 2 / 3)
    await throttled(limiter, 2, 1.0)
    assert limiter.rate == pytest.approx(START_RATE * 8 / 27)


@virtual
async def test_a_rate_goes_up_again_step_by_step_to_where_it_began() -> None:
    """Each second of use without throttling adds 2 % of the start, and never more than was at first."""
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 5, 1.0)
    low = limiter.rate
    for step in range(1, 60):
        await asyncio.sleep(1.0)
        await calls(limiter, 1, [])
        assert limiter.rate == pytest.approx(min(low + step * 0.02 * START_RATE, START_RATE))
    assert limiter.rate == START_RATE


@virtual
async def test_a_rate_never_comes_down_to_nothing() -> None:
    """However often AWS throttles, one call a second still goes out."""
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 100, 1.0)
    assert limiter.rate == MIN_RATE
    begun: list[float] = []
    await calls(limiter, 3, begun)
    assert begun[-1] - begun[0] <= 3.0


@virtual
async def test_a_rate_that_was_set_stays_as_it_is() -> None:
    """The operator's rate is neither lowered by throttling nor raised by its absence."""
    limiter = RateLimiter("a", RateLimit(rate=50))
    await throttled(limiter, 5, 1.0)
    await asyncio.sleep(100)
    await calls(limiter, 5, [])
    assert limiter.rate == 50


@virtual
async def test_a_lane_keeps_the_rate_that_it_came_down_to() -> None:
    """After throttling calls go out at the lower rate at once."""
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 10, 1.0)
    rate = limiter.rate
    begun: list[float] = []
    await calls(limiter, 10, begun)
    assert begun[-1] - begun[0] >= 8 / (rate + 0.02 * START_RATE)
