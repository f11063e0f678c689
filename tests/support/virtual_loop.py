"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is ready.

A run is a function of its seed: whatever is ready at the same time runs in an order that the seed draws, so
that a test can't pass by the luck of one order. Only tasks, timers and futures live here: a thread's answer
would come at an instant that the loop has long left behind.
"""

from __future__ import annotations

import asyncio
import functools
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Nothing is ready and no timer is set: every task waits for another."""


class _Jump(selectors.DefaultSelector):
    """A selector that never waits: where the loop would sleep, its time moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; otherwise let ``timeout`` seconds pass at once."""
        ready = super().select(0)
        if not ready and timeout is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self.loop))
            raise DeadlockError(f"nothing is ready and no timer is set; these wait: {', '.join(waiting)}")
        if not ready and timeout is not None:
            self.now += timeout
        return ready

    loop: asyncio.AbstractEventLoop


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its ``time()`` starts at 0 and moves only while everybody waits."""

    def __init__(self, seed: int = 0) -> None:
        """Draw the order of what is ready from ``seed``."""
        self._jump = _Jump()
        self._jump.loop = self
        self._rng = random.Random(seed)
        super().__init__(self._jump)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jump.now

    def _run_once(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[has-type]
        if len(ready) > 1:
            drawn = list(ready)
            self._rng.shuffle(drawn)
            self._ready = deque(drawn)
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """Run ``main`` in virtual time and return its result; a deadlock raises ``DeadlockError``."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(main)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Turn an async test into one that pytest runs in virtual time."""

    @functools.wraps(test)
    def within(*args: object, **kwargs: object) -> None:
        run(test(*args, **kwargs))

    return within
