"""Sends one request repeatedly and records how long each answer took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median

from lessor.v1 import role_pb2
from tests.fire.environment import MOUNT
from tests.support.clients import Lessor

Ask = Callable[[], Awaitable[object]]


def reads(lessor: Lessor, lease_id: str) -> Ask:
    """Return a caller of GetRole and then LookupLease."""

    async def ask() -> None:
        await lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=MOUNT, name="app"))
        await lessor.lookup(lease_id)

    return ask


async def usual(ask: Ask, times: int = 60) -> float:
    """Return the median of so many answers' seconds."""
    return median([await _seconds(ask) for _ in range(times)])


@asynccontextmanager
async def meanwhile(ask: Ask, pause: float = 0.02) -> AsyncIterator[list[float]]:
    """Send requests while the block runs; yields the seconds of each answer, as they come."""
    taken: list[float] = []
    stopped = False

    async def again() -> None:
        while not stopped:
            taken.append(await _seconds(ask))
            await asyncio.sleep(pause)

    async with asyncio.TaskGroup() as group:
        group.create_task(again())
        try:
            yield taken
        finally:
            stopped = True


async def _seconds(ask: Ask) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask()
    return loop.time() - began
