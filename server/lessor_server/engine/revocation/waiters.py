"""Callers who wait for the next attempt to revoke a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class AttemptWaiters:
    """Futures by lease id; each is set when an attempt on that lease has ended."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._futures: dict[str, dict[asyncio.Future[None], None]] = {}

    @contextmanager
    def attempt(self, lease_id: str) -> Iterator[asyncio.Future[None]]:
        """Give a future for the end of the next attempt; enter before asking for the attempt."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(lease_id, {})[future] = None
        try:
            yield future
        finally:
            waiting = self._futures[lease_id]
            del waiting[future]
            if not waiting:
                del self._futures[lease_id]

    def ended(self, lease_id: str) -> None:
        """Wake all callers that wait for ``lease_id``: an attempt has ended."""
        for future in self._futures.get(lease_id, ()):
            if not future.done():
                future.set_result(None)
