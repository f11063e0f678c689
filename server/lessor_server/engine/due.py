"""What the Keeper should look at next: ids whose deadlines have come, or the whole store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from itertools import islice

MOST_HINTS = 100_000


class Due:
    """Hints in the order they came, a bounded number of them; past the bound the store is asked instead."""

    def __init__(self) -> None:
        """Begin by looking at the whole store: a start does not know what fell due meanwhile."""
        self._hints: dict[str, None] = {}
        self._urgent: dict[str, None] = {}
        self._put_off: dict[str, None] = {}
        self.everything = True
        self._looked_at = -math.inf
        self._wake = asyncio.Event()
        self._wake.set()

    def offer(self, ids: Iterable[str]) -> None:
        """Take the hint that ``ids`` are due."""
        for lease_id in ids:
            self._hints[lease_id] = None
        if len(self._hints) > MOST_HINTS:
            self._hints.clear()
            self.everything = True
        self._wake.set()

    def urge(self, lease_id: str) -> None:
        """Have a lease looked at before all others: a person asked for its end."""
        self._urgent[lease_id] = None
        self._wake.set()

    def put_off(self, lease_id: str) -> None:
        """Have a lease that was urgent go first again when everything is looked at."""
        if len(self._put_off) < MOST_HINTS:
            self._put_off[lease_id] = None

    def look_at_everything(self) -> None:
        """Have the store asked for whatever is due, after what is urgent."""
        self._urgent |= self._put_off
        self._put_off.clear()
        self.everything = True
        self._wake.set()

    def nudge(self) -> None:
        """Wake the Keeper if something waits for it: it has room again."""
        if self._hints or self._urgent or self.everything:
            self._wake.set()

    def take(self, most: int) -> tuple[list[str], bool]:
        """Take out at most ``most`` ids; return them, and whether they are the urgent ones."""
        source = self._urgent or self._hints
        ids = list(islice(source, most))
        for lease_id in ids:
            del source[lease_id]
        return ids, source is self._urgent

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to look at; ``seconds`` after the last time, that is everything.

        The time runs on whatever hints come: however busy it is, nothing is overlooked for long.
        """
        loop = asyncio.get_running_loop()
        until = self._looked_at + seconds
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        if self.everything or loop.time() >= until:
            self.everything = True
            self._looked_at = loop.time()
