"""Waits of the engine's parts, which look for work when they are woken and at times."""

from __future__ import annotations

import asyncio


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


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until ``event`` is set, and set it after so many seconds; return whether these passed first."""
    return await wait_until(event, asyncio.get_running_loop().time() + seconds)
