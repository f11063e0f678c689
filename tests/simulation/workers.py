"""Runs tasks in several processes. A process that dies is replaced, and its task runs again."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Generic, Self, TypeVar

MAX_DEATHS = 3
"""A task during which so many processes died runs no more."""

WAIT_SECONDS = 5.0
T = TypeVar("T")
Task = Callable[[], T]
_SPAWN = multiprocessing.get_context("spawn")


class TaskError(Exception):
    """A task raised; the text is its traceback."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A task and its result."""

    index: int
    result: T


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a task died, for the ``times``-th time."""

    index: int
    times: int
    exit_code: int | None

    @property
    def given_up(self) -> bool:
        """Return whether the task runs no more."""
        return self.times >= MAX_DEATHS


class _Worker:
    """One process, and the task that it runs."""

    def __init__(self, prepare: Callable[[], object]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.task: int | None = None
        self._process = _SPAWN.Process(target=_serve, args=(theirs, prepare), daemon=True)
        resource_tracker.ensure_running()  # which unblocks the signal, if start() starts it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()  # a Ctrl-C is its parent's, who ends it
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def lives(self) -> bool:
        """Return whether it runs."""
        return self._process.is_alive()

    def end(self) -> int | None:
        """End it, if it has not ended; return its exit code."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
        return self._process.exitcode


class Workers:
    """So many processes, which end with the ``with`` block."""

    def __init__(self, processes: int, prepare: Callable[[], object]) -> None:
        """Call ``prepare`` first in each process."""
        self._prepare = prepare
        self.workers = [_Worker(prepare) for _ in range(processes)]

    def __enter__(self) -> Self:
        """Return the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes immediately, with what they run."""
        for worker in self.workers:
            worker.end()

    def run(self, tasks: Sequence[Task[T]]) -> Iterator[Done[T] | Died | None]:
        """Yield the end of each task, in any order, and None every ``WAIT_SECONDS`` when there is none.

        Raises:
            TaskError: A task raised.
        """
        waiting, deaths = deque(range(len(tasks))), Counter[int]()
        while self._start(tasks, waiting):
            heard = wait([worker.pipe for worker in self.workers if worker.task is not None], WAIT_SECONDS)
            if not heard:
                yield None
            for seat, worker in enumerate(self.workers):
                if worker.pipe not in heard or worker.task is None:
                    continue
                index, worker.task = worker.task, None
                try:
                    ok, result = worker.pipe.recv()
                except (EOFError, OSError):
                    deaths[index] += 1
                    died = Died(index, deaths[index], worker.end())
                    self.workers[seat] = _Worker(self._prepare)
                    if not died.given_up:
                        waiting.append(index)
                    yield died
                    continue
                if not ok:
                    raise TaskError(result)
                yield Done(index, result)

    def _start(self, tasks: Sequence[Task[T]], waiting: deque[int]) -> bool:
        """Give each idle process a task; return whether any process has one."""
        for worker in self.workers:
            if worker.task is None and waiting:
                worker.task = waiting.popleft()
                with suppress(OSError):  # it is dead: the next read notices
                    worker.pipe.send(tasks[worker.task])
        return any(worker.task is not None for worker in self.workers)


def _serve(pipe: Connection, prepare: Callable[[], object]) -> None:
    """Run the tasks that come, until the parent has ended."""
    prepare()
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_outcome(pipe.recv()))


def _outcome(task: Task[T]) -> tuple[bool, T | str]:
    """Return whether a task succeeded, and its result or its traceback."""
    try:
        return True, task()
    except Exception:  # noqa: BLE001 - raised in the parent
        return False, traceback.format_exc()
