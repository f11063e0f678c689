"""Checks the limits for callers without a credential."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import pytest

from lessor_server.domain.errors.base import TooManyCalls
from lessor_server.services.anonymous import (
    ALL_TURNS_PER_SECOND,
    BURST_SECONDS,
    MAX_PLACES,
    MAX_STREAMS,
    MAX_STREAMS_PER_CONNECTION,
    MAX_WAIT_SECONDS,
    TURNS_PER_SECOND,
    AnonymousCalls,
)
from tests.support.virtual_loop import virtual

BURST = int(TURNS_PER_SECOND * BURST_SECONDS)


async def take_turns(calls: AnonymousCalls, peer: str, count: int) -> float:
    """Take turns one after another; return how many seconds that took."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for _ in range(count):
        await calls.wait_turn(peer)
    return loop.time() - begin


@virtual
async def test_a_burst_is_free_and_then_turns_come_at_a_rate() -> None:
    calls = AnonymousCalls()
    assert await take_turns(calls, "a", BURST) == 0
    assert await take_turns(calls, "a", 100) == pytest.approx(100 / TURNS_PER_SECOND, abs=0.2)


@virtual
async def test_a_flood_on_one_connection_does_not_delay_another() -> None:
    calls = AnonymousCalls()
    async with asyncio.TaskGroup() as group:
        flood = [group.create_task(calls.wait_turn("a")) for _ in range(1_000)]
        await asyncio.sleep(0)
        assert await take_turns(calls, "b", BURST) == 0
        assert not all(task.done() for task in flood)


@virtual
async def test_a_flood_on_many_connections_is_held_to_a_rate_and_delays_no_other() -> None:
    calls, served = AnonymousCalls(), 0

    async def flood(peer: str) -> None:
        nonlocal served
        while True:
            await calls.wait_turn(peer)
            served += 1

    async with asyncio.TaskGroup() as group:
        flooding = [group.create_task(flood(str(number))) for number in range(100)]
        await asyncio.sleep(10)  # past the bursts
        before = served
        await asyncio.sleep(10)
        assert served - before == pytest.approx(10 * ALL_TURNS_PER_SECOND, rel=0.1)
        assert await take_turns(calls, "health check", 2) == 0
        for task in flooding:
            task.cancel()


@virtual
async def test_no_caller_waits_longer_than_the_bound() -> None:
    calls = AnonymousCalls()
    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(take_turns(calls, "a", 1)) for _ in range(1_000)]
        assert max(task.result() for task in waiting) <= MAX_WAIT_SECONDS


@virtual
async def test_closed_connections_are_dropped_from_memory() -> None:
    calls = AnonymousCalls()
    for number in range(20_000):
        await calls.wait_turn(f"connection {number}")
        await asyncio.sleep(0.001)
    assert len(calls._next) < 5_000


@virtual
async def test_the_call_that_has_waited_longest_for_a_message_is_dropped_for_a_newer_one() -> None:
    calls = AnonymousCalls()
    given_up: list[int] = []

    async def be_awaited(number: int) -> None:
        try:
            timeout = asyncio.timeout(3600)
            with calls.place(timeout):
                async with timeout:
                    await asyncio.get_running_loop().create_future()
        except TimeoutError:
            given_up.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(MAX_PLACES):
            group.create_task(be_awaited(number))
            await asyncio.sleep(1)
        assert given_up == []
        group.create_task(be_awaited(MAX_PLACES))
        await asyncio.sleep(1)
        assert given_up == [0]


@virtual
async def test_a_newer_call_has_a_place_also_at_the_moment_the_oldest_gives_up() -> None:
    """The oldest one's timeout has come, but its task has not run yet."""
    calls = AnonymousCalls()
    loop = asyncio.get_running_loop()
    placed: list[asyncio.Timeout] = []

    async def be_awaited() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(10) as timeout:
                placed.append(timeout)
                with calls.place(timeout):
                    await loop.create_future()

    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_PLACES):
            group.create_task(be_awaited())
        await asyncio.sleep(5)
        placed[0]._on_timeout()  # type: ignore[attr-defined]
        async with asyncio.timeout(1) as newer:
            with calls.place(newer):
                await asyncio.sleep(0)


def test_a_connection_and_the_server_have_a_bounded_number_of_streams() -> None:
    calls = AnonymousCalls()
    with ExitStack() as open_streams:
        first = open_streams.enter_context(ExitStack())
        for _ in range(MAX_STREAMS_PER_CONNECTION):
            first.enter_context(calls.stream("a"))
        with pytest.raises(TooManyCalls), calls.stream("a"):
            pass
        for number in range(MAX_STREAMS - MAX_STREAMS_PER_CONNECTION):
            open_streams.enter_context(calls.stream(f"b{number}"))
        with pytest.raises(TooManyCalls), calls.stream("c"):
            pass
        first.close()
        with calls.stream("c"):
            pass
