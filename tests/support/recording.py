"""An observer that remembers what happened, so that a test can wait for an event and never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from lessor_server.domain.events import Event

E = TypeVar("E", bound=Event)


class Recording:
    """Keeps every event with the loop's time at which it came."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[Event] = []
        self.times: list[float] = []
        self.also: Callable[[Event], None] | None = None
        """A second receiver, for tests of observers that fail."""
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())
        self._changed.set()
        if self.also is not None:
            self.also(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one class in the order they came."""
        return [event for event in self.events if isinstance(event, kind)]

    def times_of(self, kind: type[Event]) -> list[float]:
        """Return when the events of one class came, in the loop's seconds."""
        return [at for event, at in zip(self.events, self.times, strict=True) if isinstance(event, kind)]

    async def until(
        self,
        kind: type[E],
        seconds: float = 3600.0,
        *,
        count: int = 1,
        where: Callable[[E], bool] | None = None,
    ) -> E:
        """Return the ``count``-th event of a class that ``where`` takes, waiting for it if need be.

        It fails the test when ``seconds`` of the loop's time pass without one.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            found = [event for event in self.of(kind) if where is None or where(event)]
            if len(found) >= count:
                return found[count - 1]
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                message = f"no {kind.__name__} came in {seconds:g} s; there were {self.events[-5:]}"
                raise AssertionError(message) from None
            self._changed.clear()
