"""What the Keeper should look at next: ids whose deadlines have come, or the whole store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

MOST_HINTS = 100_000


class Due:
    """Hints in the order they came, a bounded number of them; past the bound the store is asked instead."""

    def __init__(self) -> None:
        """Begin by looking at the whole store: a start does not know what fell due meanwhile."""
        self._hints: dict[str, None] = {}
        self.everything = True
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

    def look_at_everything(self) -> None:
        """Have the store asked for whatever is due."""
        self.everything = True
        self._wake.set()

    def nudge(self) -> None:
        """Wake the Keeper if something waits for it: it has room again."""
        if self._hints or self.everything:
            self._wake.set()

    def take(self, most: int) -> list[str]:
        """Take out and return at most ``most`` hints."""
        ids = list(islice(self._hints, most))
        for lease_id in ids:
            del self._hints[lease_id]
        return ids

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to look at; after ``seconds`` that is everything."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self.everything = True
        self._wake.clear()
