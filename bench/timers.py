"""The row of the timing wheel, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from bench.figures import Figure
from bench.world import Size, World
from lessor_server.adapters.process import tune_garbage_collection
from lessor_server.engine.revocation.wheel import SLOT_US, Wheel

_CHUNK = 100
_SLOTS = 600
"""The seconds of the window that the expiry timer keeps (``expiry_timer.SPAN``)."""


def wheel(_world: World, size: Size) -> Iterator[Figure]:
    """Measure inserts, moves and pops of timers over ten minutes."""
    tune_garbage_collection()
    rounds = [_measure(size.timers) for _ in range(size.rounds)]
    for index, name in enumerate(("insert", "move", "pop")):
        yield Figure(
            f"wheel of {size.timers:,}: {name}",
            median(each[index] for each, _ in rounds),
            "µs each",
            must=1.5,
            more_is_better=False,
        )
    pause = median(pause for _, pause in rounds)
    yield Figure(f"wheel of {size.timers:,}: longest pause", pause, "ms", must=5, more_is_better=False)


def _measure(count: int) -> tuple[list[float], float]:
    """Return the µs of an insert, a move and a pop, and the ms of the longest pause.

    Both are this thread's CPU: that others hold the processor is not the wheel's. A pause is that of a
    hundred inserts or of one pop.
    """
    keys = [f"aws/creds/bench/{number:024}" for number in range(count)]
    turning = Wheel()
    pauses: list[int] = []

    def insert(step: int) -> float:
        begun = time.thread_time_ns()
        for start in range(0, count, _CHUNK):
            before = time.thread_time_ns()
            for number in range(start, min(start + _CHUNK, count)):
                turning.insert(keys[number], number * step % (SLOT_US * _SLOTS))
            pauses.append(time.thread_time_ns() - before)
        return (time.thread_time_ns() - begun) / 1e3 / count

    def pop() -> float:
        begun = time.thread_time_ns()
        for slot in range(_SLOTS + 1):
            before = time.thread_time_ns()
            turning.pop(slot * SLOT_US)
            pauses.append(time.thread_time_ns() - before)
        return (time.thread_time_ns() - begun) / 1e3 / count

    each = [insert(7919), insert(6101), pop()]
    assert not len(turning)
    return each, max(pauses) / 1e6
