"""Runs a scenario of a crash test, with or without a crash, so that its crash points have one order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine

from tests.support.engine_world import World

MAX_ALIKE = 6


async def play(w: World, story: Coroutine[object, object, None]) -> asyncio.Task[None]:
    """Run a scenario to its end or to its crash; return its task."""
    playing = asyncio.get_running_loop().create_task(story)
    reached = asyncio.get_running_loop().create_task(w.points.reached.wait())
    await asyncio.wait([playing, reached], return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    return playing


def telling(points: list[str]) -> list[int]:
    """Return the crash points to try: the first six of each name, because repetitions are alike."""
    seen: Counter[str] = Counter()
    chosen = []
    for index, name in enumerate(points):
        seen[name] += 1
        if seen[name] <= MAX_ALIKE:
            chosen.append(index)
    return chosen


def outermost(points: list[str]) -> list[int]:
    """Return fewer crash points: the first and the last of each name."""
    last = {name: index for index, name in enumerate(points)}
    return [index for index, name in enumerate(points) if name not in points[:index] or last[name] == index]


def foremost(points: list[str]) -> list[int]:
    """Return the fewest crash points: the first of each name."""
    return [index for index, name in enumerate(points) if name not in points[:index]]
