"""Checks when a call that waits for an idle event loop is made."""

from __future__ import annotations

import asyncio

from lessor_server.adapters.idle import QUIET_ITERATIONS, IdleCall

EMPTY, BUSY = 0.000_005, 0.000_5
"""The seconds of an iteration of the loop."""


class Loop:
    """The time of an event loop's iterations, which a test chooses, and an ``IdleCall`` on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[float] = []
        self.idle = IdleCall(lambda: self.calls.append(self.now), lambda: self.now)

    async def run(self, *iterations: float) -> None:
        """Run iterations of these lengths."""
        for took in iterations:
            await asyncio.sleep(0)
            self.now += took


async def test_the_call_is_made_after_some_iterations_that_did_nothing() -> None:
    loop = Loop()
    loop.idle.begin(1)
    await loop.run(*[EMPTY] * QUIET_ITERATIONS)
    assert not loop.calls
    await loop.run(*[EMPTY] * 3)
    assert len(loop.calls) == 1


async def test_a_busy_iteration_begins_the_count_again() -> None:
    loop = Loop()
    loop.idle.begin(1)
    await loop.run(EMPTY, *[EMPTY, EMPTY, BUSY] * 20)
    assert not loop.calls
    await loop.run(*[EMPTY] * (QUIET_ITERATIONS + 2))
    assert len(loop.calls) == 1


async def test_a_loop_that_stays_busy_delays_the_call_for_its_seconds_only() -> None:
    loop = Loop()
    await loop.run(BUSY)
    loop.idle.begin(20 * BUSY)
    began = loop.now
    await loop.run(EMPTY, EMPTY, *[BUSY] * 30)
    [called] = loop.calls
    assert 20 * BUSY <= called - began <= 22 * BUSY


async def test_it_can_wait_again_and_each_time_makes_one_call() -> None:
    loop = Loop()
    for count in range(1, 4):
        loop.idle.begin(1)
        await loop.run(*[EMPTY] * 10)
        assert len(loop.calls) == count
    await loop.run(*[EMPTY] * 10)
    assert len(loop.calls) == 3
