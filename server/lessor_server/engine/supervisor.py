"""Supervises the engine's work: an unexpected exception ends only the unit of work that raised it.

A unit is one issue, one attempt to revoke, one reconcile run, or one run of a background part. Its exception
is reported once, with a reference, and raised as ``InternalError``. As that is a ``LessorError``, the usual
error handling applies, and a caller gets the reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import InternalError, LessorError
from lessor_server.domain.events import Event
from lessor_server.engine.ports import Observer, Report

MAX_PAUSE_SECONDS: Final = 30.0
CALM_SECONDS: Final = 60.0
"""A part that ran this long before it failed restarts after the shortest pause."""

Job = Coroutine[object, object, object]


@dataclass(slots=True)
class Unit:
    """One unit of work, while its block runs."""

    report: Report
    name: str

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Report an unexpected exception, and raise ``InternalError`` in its place."""
        match error:
            case None | LessorError():
                return
            case asyncio.CancelledError() if not _is_cancelled():
                raise InternalError(self.report(self.name, error)) from error
            case Exception():
                raise InternalError(self.report(self.name, error)) from error


class Supervisor:
    """Contains unexpected exceptions and reports them."""

    def __init__(self, report: Report) -> None:
        """Report unexpected exceptions by ``report``."""
        self._report = report

    def unit(self, name: str) -> Unit:
        """Return what raises an unexpected exception of its block as ``InternalError``.

        The exception is reported under ``name``. A cancellation that was not requested of this task is
        unexpected as well: it comes from a future that was cancelled elsewhere, and would end the task
        silently.
        """
        return Unit(self._report, name)

    async def run_once(self, name: str, job: Job) -> None:
        """Run ``job`` to its end without waiting for a result; report whatever it raises."""
        try:
            with self.unit(name):
                await job
        except InternalError:
            pass  # reported already
        except LessorError as error:
            self._report(name, error)

    async def keep_running(self, run: Callable[[], Job]) -> None:
        """Run a part; restart it after each failure, with a pause of 1 s, doubling to 30 s."""
        loop = asyncio.get_running_loop()
        pause = 1.0
        while True:
            started = loop.time()
            job = run()
            name = name_of(job)
            try:
                with self.unit(name):
                    await job
                return
            except InternalError:
                pass
            except LessorError as error:
                self._report(name, error)
            if loop.time() - started >= CALM_SECONDS:
                pause = 1.0
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    def observer(self, notify: Observer) -> Observer:
        """Return an observer that reports exceptions of ``notify`` instead of raising them."""

        def observe(event: Event) -> None:
            try:
                notify(event)
            except BaseException:
                with suppress(LessorError), self.unit(f"observer of {type(event).__name__}"):
                    raise

        return observe


def _is_cancelled() -> bool:
    """Return whether a cancellation of the current task was requested."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def name_of(job: Job) -> str:
    """Return a job's name for the log: that of its function."""
    return getattr(job, "__qualname__", type(job).__name__)
