"""Notices when an event loop has nothing else to do: the moment at which another thread disturbs it least."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import perf_counter  # noqa: TID251 - the loop's time has milliseconds, and stands still in tests
from typing import Final

QUIET_ITERATIONS: Final = 5
"""The loop counts as idle after so many iterations in a row that did nothing."""
EMPTY_TIMES_SHORTEST: Final = 4
"""An iteration did nothing if it took no longer than this, in times of the shortest one so far."""


class IdleCall:
    """Calls a function once the loop is idle, or after some time if it is busy for so long.

    What many tasks hand to a thread gathers while the loop is busy. Once it is idle, the thread gets the
    interpreter's lock at once, and nothing is gained by a longer wait.
    """

    def __init__(self, call: Callable[[], None], clock: Callable[[], float] = perf_counter) -> None:
        """Call ``call`` after each ``begin``; ``clock`` returns seconds."""
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._clock = clock
        self._until = self._last = 0.0
        self._shortest = math.inf
        """The seconds of the shortest iteration so far."""
        self._quiet = 0

    def begin(self, seconds: float) -> None:
        """Begin to wait, at most for ``seconds``; the function is called from a later iteration."""
        self._until = self._clock() + seconds
        self._quiet = 0
        self._loop.call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        self._last = self._clock()
        self._loop.call_soon(self._end_iteration)

    def _end_iteration(self) -> None:
        now = self._clock()
        took = now - self._last
        self._shortest = min(self._shortest, took)
        self._quiet = self._quiet + 1 if took <= EMPTY_TIMES_SHORTEST * self._shortest else 0
        if self._quiet >= QUIET_ITERATIONS or now >= self._until:
            self._call()
        else:
            self._last = now
            self._loop.call_soon(self._end_iteration)
