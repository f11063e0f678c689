"""The engine's own group of tasks: work that must finish even if its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from lessor_server.engine.supervisor import Job, Supervisor, name_of


class BackgroundTasks:
    """Starts supervised tasks in the engine's group and counts them, so that a drain can wait for them."""

    def __init__(self, group: asyncio.TaskGroup, supervisor: Supervisor) -> None:
        """Start tasks in ``group``; what they raise is for ``supervisor``."""
        self._group = group
        self._supervisor = supervisor
        self.unit = supervisor.unit
        """Raises an unexpected exception of the block under it as ``InternalError``."""
        # Dicts, not sets: tasks are cancelled in the order they were started, in every run alike.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._lasting: dict[asyncio.Task[None], None] = {}

    def start(self, job: Job, *, lasting: bool = False) -> None:
        """Run ``job`` to its end, or for as long as the group lives where it is ``lasting``.

        A group that ends begins nothing.
        """
        task = self._start(self._supervisor.run_once(name_of(job), job), lasting=lasting)
        if task is None:
            job.close()
        else:
            task.add_done_callback(lambda _: job.close())  # where it is cancelled before its first step

    def keep_running(self, run: Callable[[], Job]) -> None:
        """Run a part until it returns or the group ends; one that fails is started again after a pause."""
        self._start(self._supervisor.keep_running(run), lasting=True)

    def _start(self, job: Coroutine[object, object, None], *, lasting: bool) -> asyncio.Task[None] | None:
        tasks = self._lasting if lasting else self._tasks
        try:
            task = self._group.create_task(job)
        except RuntimeError:  # the group is closing, so this would be cancelled before its first step
            job.close()
            return None
        tasks[task] = None
        task.add_done_callback(tasks.pop)
        return task

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
