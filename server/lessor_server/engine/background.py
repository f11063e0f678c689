"""The engine's background tasks: work that must finish even if its caller disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context

from lessor_server.engine.supervisor import Job, Supervisor, name_of


class BackgroundTasks:
    """Starts supervised tasks in the engine's group; a drain can wait for them."""

    def __init__(self, group: asyncio.TaskGroup, supervisor: Supervisor) -> None:
        """Start tasks in ``group``; ``supervisor`` handles what they raise."""
        self._group = group
        self._supervisor = supervisor
        self.unit = supervisor.unit
        """Raises an unexpected exception in its block as ``InternalError``."""
        # Dicts, not sets: every run cancels tasks in the order of their start.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._lasting: dict[asyncio.Task[None], None] = {}
        self._context = copy_context()

    def start(self, job: Job, *, lasting: bool = False, context: Context | None = None) -> None:
        """Run ``job`` to its end, or if ``lasting`` until the group ends; an ending group starts no job.

        It runs in ``context``, or in a copy of the current one.
        """
        supervised = self._supervisor.run_once(name_of(job), job)
        self._start(supervised, job.close, lasting=lasting, context=context)

    def keep_running(self, run: Callable[[], Job]) -> None:
        """Run a part until it returns or the group ends; restart it after a pause if it fails.

        It belongs to no caller, even if one caused it: it runs in the context in which this group began.
        """
        supervised = self._supervisor.keep_running(run)
        self._start(supervised, supervised.close, lasting=True, context=self._context.copy())

    def _start(
        self,
        supervised: Coroutine[object, object, None],
        close: Callable[[], None],
        *,
        lasting: bool,
        context: Context | None = None,
    ) -> None:
        """Start a task; ``close`` ends what it runs if it is cancelled before its first step."""
        tasks = self._lasting if lasting else self._tasks

        def end(task: asyncio.Task[None]) -> None:
            del tasks[task]
            close()

        try:
            task = self._group.create_task(supervised, context=context)
        except RuntimeError:  # the group is closing, so this would be cancelled before its first step
            supervised.close()
            close()
            return
        tasks[task] = None
        task.add_done_callback(end)

    async def settle(self, seconds: float) -> int:
        """Wait at most ``seconds`` for running tasks; return how many are left."""
        if not self._tasks:
            return 0
        _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
        return len(left)

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in (*self._tasks, *self._lasting):
            task.cancel()
