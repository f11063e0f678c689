"""Checks the loop with virtual time, on which most tests and the simulator run."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator

import pytest

from tests.support.virtual_loop import DeadlockError, VirtualLoop, run, virtual


@virtual
async def test_timers_run_in_their_order_and_cancelled_ones_never() -> None:
    loop, rung = asyncio.get_running_loop(), list[float]()
    timers = [loop.call_later(delay, lambda: rung.append(loop.time())) for delay in (3.0, 1.0, 2.0)]
    timers[2].cancel()
    await asyncio.sleep(10.0)
    assert rung == [1.0, 3.0]
    assert [timer.cancelled() for timer in timers] == [False, False, True]


@virtual
async def test_many_cancelled_timers_are_forgotten_and_the_others_run() -> None:
    loop, rung = asyncio.get_running_loop(), list[int]()
    timers = [loop.call_later(60.0 + number, rung.append, number) for number in range(300)]
    for timer in timers[:-1]:
        timer.cancel()
    await asyncio.sleep(1.0)
    await asyncio.sleep(1000.0)
    assert rung == [299]


@virtual
async def test_a_cancelled_callback_is_not_called() -> None:
    loop, called = asyncio.get_running_loop(), list[int]()
    loop.call_soon(called.append, 1)
    loop.call_soon(called.append, 2).cancel()
    await asyncio.sleep(1.0)
    assert called == [1]


def test_ready_callbacks_run_in_the_order_that_the_seed_shuffles() -> None:
    loop, called, wanted = VirtualLoop(7), list[int](), list(range(20))
    for number in wanted:
        loop.call_soon(called.append, number)
    random.Random(7).shuffle(wanted)
    loop.stop()
    loop.run_forever()
    loop.close()
    assert called == wanted


@virtual
async def test_an_exception_of_a_callback_reaches_the_handler_and_the_loop_goes_on() -> None:
    loop, errors = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    loop.call_soon(int, "x")
    await asyncio.sleep(1.0)
    assert [type(error) for error in errors] == [ValueError]


@virtual
async def test_an_async_generator_that_nobody_holds_is_closed() -> None:
    closed = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    generator = numbers()
    await anext(generator)
    del generator
    gc.collect()
    await asyncio.wait_for(closed.wait(), 1.0)


def test_a_deadlock_names_the_tasks_that_wait() -> None:
    async def wait() -> None:
        asyncio.current_task().set_name("the last one")  # type: ignore[union-attr]
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match="the last one"):
        run(wait())
