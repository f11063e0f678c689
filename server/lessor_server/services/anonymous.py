"""Limits what callers without a credential can use: answers per second, and open streams.

A refused call, and a call of health or reflection, uses a turn of its connection. A connection has a short
burst of turns and then at most 10 a second; all connections share 200 a second. A call that waits for its
turn holds one of the connection's HTTP/2 streams, so a flood slows itself down, and no other connection.
Source: the generic cell rate algorithm, ITU-T I.371, annex A.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lessor_server.domain.errors.base import TooManyCalls

TURNS_PER_SECOND, MIN_TURNS_PER_SECOND = 10, 1
ALL_TURNS_PER_SECOND = 200
BURST_SECONDS = 1.0
"""The length of a burst: a connection may use the turns of this time without a wait."""
MAX_WAIT_SECONDS = 10.0
MAX_PLACES = 32
"""The number of anonymous calls whose message may be awaited at the same time: each can fill memory."""

MAX_STREAMS, MAX_STREAMS_PER_CONNECTION = 1_024, 8
"""The number of open streams (health watches, reflection): the server cannot end one that is not read."""

_PRUNE_SECONDS = 0.5


class AnonymousCalls:
    """Counts the turns of connections, the calls whose message is awaited, and the open streams."""

    def __init__(self) -> None:
        """Begin without connections."""
        self._next: dict[str, float] = {}
        """By connection: when (the loop's time) its next turn is due."""
        self._pruned = 0.0
        self._places: dict[asyncio.Timeout, None] = {}
        self._streams: Counter[str] = Counter()

    async def wait_turn(self, peer: str) -> None:
        """Wait until the connection ``peer`` has a turn: at most 10 s."""
        now = asyncio.get_running_loop().time()
        earliest = now - BURST_SECONDS
        if now - self._pruned >= _PRUNE_SECONDS:
            self._pruned = now
            self._next = {one: due for one, due in self._next.items() if due > earliest}
        turn = min(max(self._next.get(peer, earliest), earliest), now + MAX_WAIT_SECONDS)
        share = ALL_TURNS_PER_SECOND / (len(self._next) or 1)
        self._next[peer] = turn + 1 / min(max(share, MIN_TURNS_PER_SECOND), TURNS_PER_SECOND)
        if turn > now:
            await asyncio.sleep(turn - now)

    @contextmanager
    def place(self, timeout: asyncio.Timeout) -> Iterator[None]:
        """Count an awaited message while the block runs; ``timeout`` ends the block if newer calls need room.

        The oldest wait is ended first: an honest caller sends its message immediately.
        """
        if len(self._places) >= MAX_PLACES:
            oldest = next(iter(self._places))
            del self._places[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        self._places[timeout] = None
        try:
            yield
        finally:
            self._places.pop(timeout, None)

    @contextmanager
    def stream(self, peer: str) -> Iterator[None]:
        """Count a stream of the connection ``peer`` while the block runs.

        Raises:
            TooManyCalls: The connection, or the server, has its maximum.
        """
        if self._streams[peer] >= MAX_STREAMS_PER_CONNECTION or self._streams.total() >= MAX_STREAMS:
            raise TooManyCalls(f"{self._streams[peer]} streams without a token are open here", retry_in=10.0)
        self._streams[peer] += 1
        try:
            yield
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]
