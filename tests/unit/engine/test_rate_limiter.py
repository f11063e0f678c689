"""Checks the rate, the queue and the calls in flight of a rate limiter."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from contextlib import suppress

import pytest

from lessor_server.domain.errors.base import AwsUnavailable, RateLimiterFull
from lessor_server.engine.aws.rate_limiter import (
    MAX_WAIT_SECONDS,
    Priority,
    RateLimit,
    RateLimiter,
    RateLimiters,
)
from tests.support.slots import slot
from tests.support.virtual_loop import virtual


def most_in_a_second(times: list[float]) -> int:
    """Return how many of the instants fall into the fullest half-open window of one second."""
    ordered = sorted(times)
    # A window is open at its end; a nanosecond keeps rounding from closing it.
    return max(bisect_left(ordered, start + 1 - 1e-9) - index for index, start in enumerate(ordered))


async def sent(
    limiter: RateLimiter, calls: int, seconds: float = 0.0, priority: Priority = Priority.ISSUE
) -> list[float]:
    """Ask for ``calls`` turns at once, each call taking ``seconds``; return when each began.

    Calls that the lane refuses count as not begun.
    """
    loop = asyncio.get_running_loop()
    begun: list[float] = []

    async def call() -> None:
        with suppress(RateLimiterFull):
            async with slot(limiter, priority):
                begun.append(loop.time())
                await asyncio.sleep(seconds)

    async with asyncio.TaskGroup() as group:
        for _ in range(calls):
            group.create_task(call())
    return begun


@pytest.mark.parametrize("priority", [Priority.ISSUE, Priority.EXPIRY])
@pytest.mark.parametrize("rate", [1.0, 3.0, 10.0, 50.0, 100.0, 1000.0])
@virtual
async def test_no_second_has_more_calls_than_the_rate(rate: float, priority: Priority) -> None:
    """In any window of one second."""
    limiter = RateLimiter("a", RateLimit(rate=rate, in_flight=10_000))
    begun = await sent(limiter, int(rate * 1.9) + 3, priority=priority)
    assert most_in_a_second(begun) <= rate


@pytest.mark.parametrize("seconds", [0.0, 0.005])
@pytest.mark.parametrize("priority", [Priority.ISSUE, Priority.EXPIRY])
@pytest.mark.parametrize("rate", [10.0, 50.0, 100.0, 1000.0])
@virtual
async def test_at_least_95_percent_of_the_rate_is_used(
    rate: float, priority: Priority, seconds: float
) -> None:
    calls = int(rate * 4)
    limiter = RateLimiter("a", RateLimit(rate=rate, in_flight=10_000, queue=100_000))
    begun = await sent(limiter, calls, seconds, priority)
    assert calls / max(begun) >= 0.95 * rate


@virtual
async def test_an_idle_time_is_not_followed_by_a_burst() -> None:
    limiter = RateLimiter("a", RateLimit(rate=100, in_flight=10_000))
    first = await sent(limiter, 50)
    await asyncio.sleep(30)
    assert most_in_a_second([*first, *await sent(limiter, 300)]) <= 100


@virtual
async def test_the_rate_holds_after_aws_did_not_answer() -> None:
    limiter = RateLimiter("a", RateLimit(rate=100, in_flight=10))
    loop = asyncio.get_running_loop()
    begun: list[float] = []

    async def call() -> None:
        async with slot(limiter):
            begun.append(loop.time())
            await asyncio.sleep(max(5.0 - loop.time(), 0.001))

    async with asyncio.TaskGroup() as group:
        for _ in range(400):
            group.create_task(call())
    assert len(begun) == 400
    assert most_in_a_second(begun) <= 100
    assert sum(at > 5.0 for at in begun) >= 0.95 * 100 * (max(begun) - 5.0)


@virtual
async def test_a_full_queue_refuses_immediately() -> None:
    limiter = RateLimiter("a", RateLimit(rate=10, in_flight=1, queue=5))
    refused: list[RateLimiterFull] = []
    served: list[float] = []
    loop = asyncio.get_running_loop()

    async def call() -> None:
        asked = loop.time()
        try:
            async with slot(limiter):
                served.append(loop.time())
                await asyncio.sleep(1)
        except RateLimiterFull as error:
            assert loop.time() == asked
            refused.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(9):
            group.create_task(call())
    assert len(served) + len(refused) == 9
    assert 5 <= len(served) <= 6
    assert all(error.retry_in and error.retry_in > 0 for error in refused)


@virtual
async def test_no_call_waits_longer_than_the_maximum() -> None:
    limiter = RateLimiter("a", RateLimit(rate=1, in_flight=2, queue=1000))
    loop = asyncio.get_running_loop()
    refused: list[float] = []

    async def call() -> None:
        try:
            async with slot(limiter):
                assert loop.time() <= MAX_WAIT_SECONDS
                await asyncio.sleep(60)
        except RateLimiterFull:
            refused.append(loop.time())

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(call())
    assert len(refused) == 28
    assert max(refused) <= MAX_WAIT_SECONDS + 1e-6


@virtual
async def test_calls_in_flight_are_bounded() -> None:
    limiter = RateLimiter("a", RateLimit(rate=10_000, in_flight=4))
    running = most = 0

    async def call() -> None:
        nonlocal running, most
        async with slot(limiter):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.5)
            running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call())
    assert (most, running) == (4, 0)


@virtual
async def test_a_cancelled_caller_leaves_the_queue() -> None:
    limiter = RateLimiter("a", RateLimit(rate=1000, in_flight=1, queue=3))
    async with asyncio.TaskGroup() as group:
        holder = group.create_task(sent(limiter, 1, seconds=60))
        await asyncio.sleep(1)
        waiting = [group.create_task(sent(limiter, 1)) for _ in range(3)]
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        holder.cancel()
    assert len(await sent(limiter, 3)) == 3


def test_a_paused_rate_limiter_refuses_immediately() -> None:
    limiters = RateLimiters(RateLimit())
    limiter = limiters.limiter("aws:1", "")
    limiter.require_open()
    limiter.pause("timeout", 4.0)
    with pytest.raises(AwsUnavailable, match="timeout") as raised:
        limiter.require_open()
    assert raised.value.retry_in == 4.0
    assert limiters.paused() == [limiter]
    limiter.resume()
    limiter.require_open()
    assert limiters.paused() == []


def test_each_account_and_endpoint_has_its_own_rate_limiter() -> None:
    limiters = RateLimiters(RateLimit())
    limiters.limiter("aws:1", "").pause("timeout", 1.0)
    limiters.limiter("aws:2", "").require_open()
    limiters.limiter("aws:1", "https://iam.test").require_open()
    assert limiters.limiter("aws:1", "").paused_for == "timeout"
