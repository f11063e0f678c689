"""A caller of a stream of credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from lessor_server.domain.access.acl import EVERYTHING
from lessor_server.domain.errors.base import LessorError
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from tests.support.engine_world import World

TTL, OVERLAP = 1000.0, 60.0
MIN_AHEAD, MAX_AHEAD = OVERLAP + 0.1 * TTL, OVERLAP + 0.15 * TTL
WISH = IssueRequest("aws", "app", "alice", timedelta(seconds=TTL), EVERYTHING)


class Listener:
    """Receives the messages of a stream as a caller does; it processes each for ``hold``."""

    def __init__(self, w: World) -> None:
        """Begin without messages."""
        self.w = w
        self.got: list[Credentials] = []
        self.times: list[float] = []
        self.error: LessorError | None = None
        self.hold = 0.0
        self._heard = asyncio.Event()

    async def listen(self, ask: Callable[[], IssueRequest], overlap: float) -> None:
        """Receive credentials until the stream ends or this is cancelled."""
        stream = self.w.engine.credential_stream.follow(ask, timedelta(seconds=overlap))
        try:
            async with aclosing(stream) as issued:
                async for made in issued:
                    self.got.append(made)
                    self.times.append(self.w.now())
                    self._heard.set()
                    await asyncio.sleep(self.hold)
        except LessorError as error:
            self.error = error
            self._heard.set()

    async def until(self, count: int, seconds: float) -> None:
        """Wait until ``count`` credentials have arrived; fail the test if that takes too long."""
        async with asyncio.timeout(seconds):
            while len(self.got) < count:
                self._heard.clear()
                await self._heard.wait()

    async def refused(self, seconds: float) -> LessorError:
        """Wait until the stream has ended, and return how it ended."""
        async with asyncio.timeout(seconds):
            while self.error is None:
                self._heard.clear()
                await self._heard.wait()
        return self.error

    def key_works(self) -> bool:
        """Return whether the newest key is on the account."""
        held = self.got[-1].lease.access_key_id
        return any(held in user.keys for user in self.w.iam.users.values())


@asynccontextmanager
async def listening(
    w: World,
    asked: IssueRequest = WISH,
    overlap: float = OVERLAP,
    ask: Callable[[], IssueRequest] | None = None,
) -> AsyncIterator[Listener]:
    """Receive for the duration of the block; then the caller disconnects. ``ask`` may change the request."""
    listener = Listener(w)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(listener.listen(ask or (lambda: asked), overlap))
        try:
            yield listener
        finally:
            task.cancel()
