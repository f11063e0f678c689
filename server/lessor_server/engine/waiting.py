"""Waits of the engine's parts, which look for work when they are woken and at times."""

from __future__ import annotations

import asyncio


async def wait_until(event: asyncio.Event, at: float) -> None:
    """Wait until ``event`` is set, and set it at the loop's time ``at``.

    A timeout would do the same at three times the cost, as it cancels the task and raises.
    """
    loop = asyncio.get_running_loop()
    timer = loop.call_at(at, event.set) if at > loop.time() else loop.call_soon(event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set, and set it after so many seconds."""
    await wait_until(event, asyncio.get_running_loop().time() + seconds)
