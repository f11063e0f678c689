"""Checks the priorities of a rate limiter, and how it adapts its rate."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from lessor_server.domain.errors.base import RateLimiterFull
from lessor_server.domain.rate_shares import MARGIN, GrantedShare
from lessor_server.engine.aws.rate_limiter import (
    MAX_WAIT_SECONDS,
    MIN_RATE,
    START_RATE,
    Priority,
    RateLimit,
    RateLimiter,
)
from lessor_server.engine.aws.shared_rate import SharedRate
from tests.support.slots import slot
from tests.support.virtual_loop import run, virtual

RANKS = (Priority.EXPIRY, Priority.ISSUE, Priority.ASKED)


async def throttled(limiter: RateLimiter, times: int, apart: float) -> None:
    """Let AWS throttle so many calls, so many seconds apart."""
    for _ in range(times):
        await asyncio.sleep(apart)
        limiter.throttled()


async def calls(limiter: RateLimiter, count: int, begun: list[float]) -> None:
    """Ask for turns one after another and note when each came."""
    for _ in range(count):
        async with slot(limiter):
            begun.append(asyncio.get_running_loop().time())


# --- order -----------------------------------------------------------------------------------------------


@virtual
async def test_explicit_revocations_go_first_then_issues_then_expiries() -> None:
    limiter = RateLimiter("a", RateLimit(rate=10, in_flight=1))
    served: list[tuple[Priority, int]] = []

    async def call(priority: Priority, number: int) -> None:
        async with slot(limiter, priority):
            served.append((priority, number))

    async with asyncio.TaskGroup() as group, slot(limiter):
        for number in range(4):
            for priority in RANKS:
                group.create_task(call(priority, number))
                await asyncio.sleep(0.01)
    assert served == [(priority, number) for priority in sorted(RANKS) for number in range(4)]


@virtual
async def test_the_calls_of_expiries_are_sent_several_at_a_time() -> None:
    limiter = RateLimiter("a", RateLimit(rate=1000))
    begun: list[float] = []

    async def expiry() -> None:
        async with slot(limiter, Priority.EXPIRY):
            begun.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        for _ in range(500):
            group.create_task(expiry())
    assert len(begun) >= 3 * len(set(begun))


@virtual
async def test_calls_of_callers_do_not_wait_while_expiries_use_the_rest_of_the_rate() -> None:
    limiter = RateLimiter("a", RateLimit(rate=1000))
    loop = asyncio.get_running_loop()
    longest = 0.0

    async def expiry() -> None:
        async with slot(limiter, Priority.EXPIRY):
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        for _ in range(500):
            group.create_task(expiry())
        for number in range(100):
            await asyncio.sleep(0.0031)
            asked = loop.time()
            async with slot(limiter, (Priority.ASKED, Priority.ISSUE)[number % 2]):
                longest = max(longest, loop.time() - asked)
    assert longest == 0


@virtual
async def test_many_expiries_do_not_delay_other_calls() -> None:
    limiter = RateLimiter("a", RateLimit(rate=200, in_flight=10))
    loop = asyncio.get_running_loop()

    async def expiry() -> None:
        with suppress(RateLimiterFull):
            async with slot(limiter, Priority.EXPIRY):
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(expiry())
        for priority in (Priority.ASKED, Priority.ISSUE):
            await asyncio.sleep(1)
            asked = loop.time()
            async with slot(limiter, priority):
                assert loop.time() - asked <= 0.02


@pytest.mark.parametrize("seed", range(10))
def test_a_turn_given_to_a_caller_that_timed_out_is_not_lost(seed: int) -> None:
    async def race() -> None:
        limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1))
        loop = asyncio.get_running_loop()

        async def holder() -> None:
            async with slot(limiter):
                await asyncio.sleep(MAX_WAIT_SECONDS)

        async def waiter() -> None:
            with suppress(RateLimiterFull):
                async with slot(limiter):
                    pass

        async with asyncio.TaskGroup() as group:
            group.create_task(holder())
            for _ in range(5):
                group.create_task(waiter())
        start = loop.time()
        async with slot(limiter):
            assert loop.time() - start < 0.01

    run(race(), seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_turn_whose_caller_is_cancelled_goes_to_the_next(seed: int) -> None:
    async def race() -> None:
        limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1))
        begun: list[float] = []
        async with asyncio.TaskGroup() as group:
            async with slot(limiter):
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
async def test_an_automatic_rate_is_lowered_by_a_third_when_aws_throttles() -> None:
    """Several throttled calls in one second count once."""
    limiter = RateLimiter("a", RateLimit())
    assert limiter.rate == START_RATE
    await throttled(limiter, 1, 2.0)
    assert limiter.rate == pytest.approx(START_RATE * 2 / 3)
    await throttled(limiter, 10, 0.05)
    assert limiter.rate == pytest.approx(START_RATE * 2 / 3)
    await throttled(limiter, 2, 1.0)
    assert limiter.rate == pytest.approx(START_RATE * 8 / 27)


@virtual
async def test_a_lowered_rate_rises_again_to_its_start() -> None:
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 5, 1.0)
    low = limiter.rate
    for step in range(1, 60):
        await asyncio.sleep(1.0)
        await calls(limiter, 1, [])
        assert limiter.rate == pytest.approx(min(low + step * 0.02 * START_RATE, START_RATE))
    assert limiter.rate == START_RATE


@virtual
async def test_a_rate_is_at_least_one_call_a_second() -> None:
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 100, 1.0)
    assert limiter.rate == MIN_RATE
    begun: list[float] = []
    await calls(limiter, 3, begun)
    assert begun[-1] - begun[0] <= 3.0


@virtual
async def test_a_fixed_rate_is_not_changed() -> None:
    limiter = RateLimiter("a", RateLimit(rate=50))
    await throttled(limiter, 5, 1.0)
    await asyncio.sleep(100)
    await calls(limiter, 5, [])
    assert limiter.rate == 50


@virtual
async def test_a_lowered_rate_holds_immediately() -> None:
    limiter = RateLimiter("a", RateLimit())
    await throttled(limiter, 10, 1.0)
    rate = limiter.rate
    begun: list[float] = []
    await calls(limiter, 10, begun)
    assert begun[-1] - begun[0] >= 8 / (rate + 0.02 * START_RATE)


# --- calls that gave up ------------------------------------------------------------------------------------


@virtual
async def test_calls_that_gave_up_take_no_place_in_the_queue() -> None:
    """Checks that others overtake for long: each gives up, by its timeout or with its caller."""
    limiter = RateLimiter("a", RateLimit(rate=10, in_flight=1, queue=20))

    async def issue() -> None:
        while True:
            async with slot(limiter):
                await asyncio.sleep(0.05)

    async def check() -> None:
        with suppress(RateLimiterFull):
            async with slot(limiter, Priority.CHECK):
                pass

    async with asyncio.TaskGroup() as group:
        issues = [group.create_task(issue()) for _ in range(3)]
        for number in range(60):
            one = group.create_task(check())
            await asyncio.sleep(MAX_WAIT_SECONDS / 9.7)
            assert limiter.waiting == limiter.count_waiting().total()
            if number % 2:
                one.cancel()
        async with slot(limiter, Priority.ASKED):
            pass
        for one in issues:
            one.cancel()
    assert len(limiter._queue) <= 20


@virtual
async def test_calls_that_give_up_at_the_same_time_are_left_out_once() -> None:
    """Some of them are cleared from the queue before they have noticed."""
    limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1))
    async with asyncio.TaskGroup() as group:
        async with slot(limiter):
            leaving = [group.create_task(calls(limiter, 1, [])) for _ in range(30)]
            staying = [group.create_task(calls(limiter, 1, [])) for _ in range(10)]
            await asyncio.sleep(1)
            for one in leaving:
                one.cancel()
            await asyncio.wait(leaving)
            assert limiter.waiting == 10
        await asyncio.wait(staying)
    assert limiter.waiting == 0


@virtual
async def test_a_larger_share_is_used_at_once_by_calls_that_wait_for_a_small_one() -> None:
    loop = asyncio.get_running_loop()
    shared = SharedRate("a", 100.0, lambda: int(loop.time() * 1e6), lambda: None)
    limiter = RateLimiter("a", RateLimit(rate=100.0), shared)
    shared.accept(GrantedShare("a", 0.2, 0.0, MARGIN), 0)
    begun: list[float] = []
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        group.create_task(calls(limiter, 2, begun))
        await asyncio.sleep(0.5)
        shared.accept(GrantedShare("a", 100.0, 0.0, MARGIN), int(loop.time() * 1e6))
    assert max(begun) - began == pytest.approx(0.5, abs=0.1)
