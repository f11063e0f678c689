"""Bounds what callers without a credential cost: how often they are answered, and what they keep open.

A call that is refused, and a call of health or reflection, takes a turn of its connection. Turns are free
for a short burst and then 10 a second, fewer where many connections take turns: together they have 200 a
second. A call that has to wait keeps its HTTP/2 stream, of which a connection has a limited number, so a
flood slows itself down. Turns are counted by connection: a health check on another one has its turn.
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
"""A connection may take the turns of so long a time together."""
MAX_WAIT_SECONDS = 10.0
MAX_PLACES = 32
"""How many anonymous callers may be awaited at the same time: each can fill a message's worth of memory."""

MAX_STREAMS, MAX_STREAMS_PER_CONNECTION = 1_024, 8
"""How many streams (health watches, reflection) may be open: a stream whose caller does not read what is
written to it cannot be ended by the server before its connection ends."""

_PRUNE_SECONDS = 0.5


class AnonymousCalls:
    """Keeps the turns of connections and the places of awaited callers."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._next: dict[str, float] = {}
        """Of each connection, when (the loop's time) the turn after the last one given is due."""
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
        """Hold a place while the block runs; ``timeout`` ends the block early if newer callers need it.

        The caller that has been awaited longest gives its place up: one that means its call sends its message
        immediately, so it is not the oldest.
        """
        if len(self._places) >= MAX_PLACES:
            oldest = next(iter(self._places))
            del self._places[oldest]
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
            TooManyCalls: The connection, or the server, has as many as it may.
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
