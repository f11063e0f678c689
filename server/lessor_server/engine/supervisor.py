"""Supervises the engine's work: an unexpected exception ends the unit of work that meets it, nothing else.

A unit is one independent attempt: one issue, one attempt to revoke, one reconcile run, one turn of a
background part. Its exception is reported once, with a reference, and is raised as ``InternalError``: a
``LessorError``, so code that handles failures handles this one as well, and a caller gets the reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Final

from lessor_server.domain.errors.base import InternalError, LessorError
from lessor_server.domain.events import Event
from lessor_server.engine.ports import Observer, Report

MAX_PAUSE_SECONDS: Final = 30.0
CALM_SECONDS: Final = 60.0
"""A part that ran for so long before it failed starts again with the shortest pause."""

Job = Coroutine[object, object, object]


class Supervisor:
    """Contains unexpected exceptions and reports them."""

    def __init__(self, report: Report) -> None:
        """Write what is unexpected by ``report``."""
        self._report = report

    @contextmanager
    def unit(self, name: str) -> Iterator[None]:
        """Raise an unexpected exception of the block as ``InternalError``, reported under ``name``.

        A cancellation that nobody asked this task for is unexpected as well: a future that somebody else
        cancelled raises it, and it would end the task without a word.
        """
        try:
            yield
        except LessorError:
            raise
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise InternalError(self._report(name, error)) from error
        except Exception as error:
            raise InternalError(self._report(name, error)) from error

    async def run_once(self, name: str, job: Job) -> None:
        """Run ``job``, whose result nobody waits for, to its end; whatever it raises is reported."""
        try:
            with self.unit(name):
                await job
        except InternalError:
            pass  # reported already
        except LessorError as error:
            self._report(name, error)

    async def keep_running(self, run: Callable[[], Job]) -> None:
        """Run a part, and again after a pause each time that it fails: 1 s, doubling to 30 s."""
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
        """Return an observer that never raises: what ``notify`` raises is reported."""

        def observe(event: Event) -> None:
            try:
                with self.unit(f"observer of {type(event).__name__}"):
                    notify(event)
            except LessorError:
                pass

        return observe


def _is_cancelled() -> bool:
    """Return whether somebody has asked for the end of the task that runs."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def name_of(job: Job) -> str:
    """Return how a job is called in the log: its function."""
    return getattr(job, "__qualname__", type(job).__name__)
