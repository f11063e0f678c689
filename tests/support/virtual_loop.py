"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is ready.

A run depends only on its seed: callbacks that are ready at the same time run in an order that the seed
determines, so that a test can't pass because of one lucky order. The loop supports only tasks, timers and
futures: the answer of a thread would arrive long after its virtual time has passed.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Nothing is ready and no timer is set: every task waits for another task."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its ``time()`` starts at 0 and advances only while every task waits."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int

    def __init__(self, seed: int = 0) -> None:
        """Choose the order of ready callbacks by ``seed``."""
        self._now = 0.0
        self._rng = random.Random(seed)
        super().__init__()

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def _run_once(self) -> None:
        """Run what is ready; without waiting for files and sockets, a turn costs half as much."""
        if len(self._ready) > 1:
            drawn = list(self._ready)
            self._rng.shuffle(drawn)
            self._ready = deque(drawn)
        self._drop_cancelled()
        timers = self._scheduled
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            self._jump()
        until = self._now + 1e-9
        while timers and timers[0]._when < until:  # type: ignore[attr-defined]
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:  # type: ignore[attr-defined]
                handle._run()

    def _drop_cancelled(self) -> None:
        """Remove cancelled timers: those at the head, and all if they are the majority."""
        timers = self._scheduled
        if len(timers) > 100 and self._timer_cancelled_count > len(timers) / 2:
            for timer in timers:
                timer._scheduled = not timer._cancelled  # type: ignore[attr-defined]
            timers[:] = [timer for timer in timers if not timer._cancelled]  # type: ignore[attr-defined]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0]._cancelled:  # type: ignore[attr-defined]
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1

    def _jump(self) -> None:
        """Advance the time to the next timer."""
        if not self._scheduled:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise DeadlockError(f"nothing is ready and no timer is set; these wait: {', '.join(waiting)}")
        when: float = self._scheduled[0]._when  # type: ignore[attr-defined]
        self._now += max(when - self._now, 0.0)


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
