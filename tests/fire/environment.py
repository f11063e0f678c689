"""One server that can be killed and restarted with the same data, and its AWS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from lessor.v1 import creds_pb2
from tests.support.clients import Lessor, connect, until
from tests.support.server_process import ServerProcess
from tests.support.standin_control import Json, StandIn

T = TypeVar("T")

Figures = dict[str, float]
"""What a scenario measured, by name."""

Made = creds_pb2.GenerateCredentialsResponse

BOUND = 3.0
"""Seconds after its expiry within which a key is dead."""
COARSE = 0.01
"""Seconds by which two processes' readings of one clock may differ."""
MAX_CONCURRENT = 16
MOUNT = "aws"
ROLES = ("app", "swept")


class Environment:
    """A server over ``folder`` and the AWS that it may reach."""

    def __init__(self, folder: Path, aws: StandIn) -> None:
        """Keep the server's data in ``folder``."""
        self.aws = aws
        self.process = ServerProcess()
        self._folder = folder
        self._runs = False

    async def start(self, **settings: str) -> None:
        """Start the server, for the first time or again."""
        await self.process.start(self._folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": self.aws.url} | settings)

    async def restart(self, **settings: str) -> None:
        """Let the server drain, and start it with other settings."""
        assert await self.process.stop() == 0
        await self.start(**settings)

    def connect(self) -> AbstractAsyncContextManager[Lessor]:
        """Open a channel to the server that runs now."""
        return connect(self.process.address, self.process.token)


@asynccontextmanager
async def run_environment(folder: Path, latency: float = 0.0, **settings: str) -> AsyncIterator[Environment]:
    """Run a server and its AWS for the length of the block, with a mount, a bound root and both roles.

    Args:
        folder: Where the server's data and log lie.
        latency: Seconds that AWS takes over each call.
        settings: Variables of the server's environment.
    """
    async with StandIn.start(latency=latency) as aws:
        environment = Environment(folder, aws)
        await environment.start(**settings)
        try:
            async with environment.connect() as lessor:
                await lessor.enable(MOUNT, aws.url)
                for role in ROLES:
                    await lessor.put_role(MOUNT, role)
                await lessor.revoke((await lessor.generate(MOUNT)).lease_id)
            yield environment
        finally:
            await environment.process.kill()


def now() -> float:
    """Return the wall clock's time, seconds since 1970, as the server and its AWS read it too."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def ends(made: Made) -> float:
    """Return when a credential ends, seconds since 1970."""
    return made.expire_time.ToMicroseconds() / 1e6


def user_of(made: Made) -> str:
    """Return the name of the user that was made for a credential."""
    return made.arn.rpartition("/")[2]


async def sleep_until(instant: float) -> None:
    """Sleep until the wall clock shows ``instant``, if it does not yet."""
    await asyncio.sleep(max(instant - now(), 0))


async def each(
    things: Iterable[T], work: Callable[[T], Awaitable[None]], limit: int = MAX_CONCURRENT
) -> None:
    """Do ``work`` on every thing, so many at the same time, begun in their order."""
    waiting = iter(list(things))

    async def worker() -> None:
        for thing in waiting:
            await work(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(worker())


async def cuts(aws: StandIn) -> dict[str, float]:
    """Return when each user's access was cut, seconds since 1970, in the order in which it happened."""
    ahead = now() - time.clock_gettime(time.CLOCK_MONOTONIC)
    found: dict[str, float] = {}
    for call in await aws.calls("DeleteAccessKey"):
        if call["outcome"] == "ok":
            found.setdefault(str(call["user"]), float(str(call["t"])) + ahead)
    return found


async def no_user_of(aws: StandIn, names: set[str], seconds: float) -> None:
    """Wait until AWS has none of these users; AssertionError when that takes too long."""

    async def left() -> set[str]:
        return names & set(await aws.users("/lessor/"))

    await until(left, lambda users: not users, seconds)


def keys_of(user: Json) -> list[str]:
    """Return the ids of a user's keys."""
    keys = user["keys"]
    assert isinstance(keys, list)
    return [str(key["id"]) for key in keys]
