"""The engine's own group of tasks: work that must finish whoever goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Work:
    """Starts tasks in the engine's group and counts them, so that a drain can wait for them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        """Start tasks in ``group``."""
        self._group = group
        # Dicts, not sets: tasks are cancelled in the order they were started, in every run alike.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._lasting: dict[asyncio.Task[None], None] = {}

    def start(self, job: Coroutine[object, object, None], *, lasting: bool = False) -> None:
        """Run ``job`` to its end, or for as long as the group lives where it is ``lasting``.

        It must not raise for work's sake: only a defect ends the group. A group that ends begins nothing.
        """
        tasks = self._lasting if lasting else self._tasks
        try:
            task = self._group.create_task(job)
        except RuntimeError:  # the group is closing, so this would be cancelled before its first step
            job.close()
            return
        tasks[task] = None
        task.add_done_callback(tasks.pop)

    async def settle(self, seconds: float) -> int:
        """Wait at most ``seconds`` for what runs; return how many tasks are left."""
        if not self._tasks:
            return 0
        _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
        return len(left)

    def cancel(self) -> None:
        """Cancel all that runs."""
        for task in (*self._tasks, *self._lasting):
            task.cancel()
