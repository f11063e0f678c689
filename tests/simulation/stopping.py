"""A virtual loop that can stop one process of a run while all others continue, as SIGSTOP and SIGCONT do.

The callbacks and timers of a stopped process are kept. When it continues, time has passed: overdue timers run
immediately, together with the answers that arrived.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from asyncio import events
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

from tests.support.virtual_loop import Handle, TimerHandle, VirtualLoop

LIFE: ContextVar[object | None] = ContextVar("LIFE", default=None)
"""The process to which a task, a timer or a callback belongs; None where it is the world's."""

_ASKED: Final = (
    (asyncio, "get_running_loop"),
    (events, "get_running_loop"),
    (events, "_get_running_loop"),
)
"""The functions that return the running loop."""

H = TypeVar("H", bound=Handle)


class StoppingLoop(VirtualLoop):
    """A loop that runs no callback of a stopped process."""

    def __init__(self, seed: int = 0) -> None:
        """Draw the order of ready callbacks from ``seed``; no process is stopped."""
        super().__init__(seed)
        self._aside: dict[object, list[Handle]] = {}
        self._timers_run = True

    def _run_once(self) -> None:
        """Run until the loop is to stop; until then each question for the running loop has one answer.

        Python's own answer asks the system for the number of the process each time, as it may be a fork.
        """
        answer = itertools.repeat(self).__next__
        own = [(module, name, getattr(module, name)) for module, name in _ASKED]
        try:
            for module, name in _ASKED:
                setattr(module, name, answer)
            super()._run_once()
        finally:
            for module, name, function in own:
                setattr(module, name, function)

    def halt(self, life: object) -> None:
        """Run no callback of ``life`` from the next iteration of the loop on."""
        self._aside.setdefault(life, [])
        self._timers_run = self._holds_back = True

    def go_on(self, life: object) -> None:
        """Continue ``life``, if it was stopped."""
        for handle in self._aside.pop(life, ()):
            if handle.cancelled():
                continue
            if isinstance(handle, TimerHandle):
                handle.loop = self
                heapq.heappush(self._scheduled, handle)
            else:
                self._ready.append(handle)
        self._holds_back = bool(self._aside)

    def next_of(self, life: object) -> float:
        """Return the time of the next timer of ``life``, which runs; infinity if there is none."""
        timers = (timer for timer in self._scheduled if timer.context.get(LIFE) is life)
        return min((timer.when() for timer in timers if not timer.cancelled()), default=math.inf)

    def _hold_back(self) -> None:
        self._ready = list(self._of_those_who_run(self._ready))
        if self._timers_run:  # a stopped process sets no further timer
            self._scheduled[:] = self._of_those_who_run(self._scheduled)
            heapq.heapify(self._scheduled)
            self._timers_run = False

    def _of_those_who_run(self, handles: Iterable[H]) -> Iterator[H]:
        """Yield the handles of running processes, and keep the others for later."""
        for handle in handles:
            aside = self._aside.get(handle.context.get(LIFE))
            if aside is None or handle.cancelled():
                yield handle
                continue
            if isinstance(handle, TimerHandle):
                handle.loop = None
            aside.append(handle)
