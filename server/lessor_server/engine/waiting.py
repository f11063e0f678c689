"""Waits of the engine's parts, which look for work when they are woken and at times."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(event: asyncio.Event, at: float) -> bool:
    """Wait until ``event`` is set, and set it at the loop's time ``at``; return whether that time came first.

    A timeout would do the same at three times the cost, as it cancels the task and raises. The loop's clock
    does not answer the question: timers may fire a clock tick early.
    """
    loop, came = asyncio.get_running_loop(), False

    def ring() -> None:
        nonlocal came
        came = not event.is_set()
        event.set()

    timer = loop.call_at(at, ring) if at > loop.time() else loop.call_soon(ring)
    try:
        await event.wait()
    finally:
        timer.cancel()
    return came


async def finish_within(seconds: float, job: Awaitable[T]) -> T:
    """Return the result of ``job``; cancel it after so many seconds.

    ``asyncio.timeout`` does the same at three times the cost.

    Raises:
        TimeoutError: It took longer.
    """
    task, is_late = asyncio.current_task(), False
    assert task is not None

    def end() -> None:
        nonlocal is_late
        is_late = task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        return await job
    except asyncio.CancelledError:
        if is_late and task.cancelling() == 1:
            raise TimeoutError from None
        raise  # somebody else cancels the task
    finally:
        timer.cancel()
        if is_late:
            task.uncancel()


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until ``event`` is set, and set it after so many seconds; return whether these passed first."""
    return await wait_until(event, asyncio.get_running_loop().time() + seconds)
