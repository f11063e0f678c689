"""Checks that tasks run in several processes, and that the death of one is reported and repaired."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.simulation.workers import MAX_DEATHS, Died, Done, TaskError, Workers


def die_first(mark: Path) -> str:
    """End the process the first time, and succeed the second."""
    if not mark.exists():
        mark.touch()
        os._exit(7)
    return "done"


def test_each_task_is_run_once() -> None:
    with Workers(2, list) as workers:
        ended = list(workers.run([partial(pow, 2, power) for power in range(20)]))
    results = [(event.index, event.result) for event in ended if isinstance(event, Done)]
    assert sorted(results) == [(power, 2**power) for power in range(20)]


def test_the_task_of_a_dead_process_runs_again(tmp_path: Path) -> None:
    with Workers(1, list) as workers:
        ended = list(workers.run([partial(die_first, tmp_path / "mark")]))
    assert ended == [Died(0, 1, 7), Done(0, "done")]


def test_a_task_that_always_ends_its_process_is_given_up_and_the_others_are_done() -> None:
    with Workers(1, list) as workers:
        ended = list(workers.run([partial(os._exit, 7), partial(pow, 2, 3)]))
    deaths = [event for event in ended if isinstance(event, Died)]
    assert [died.given_up for died in deaths] == [False] * (MAX_DEATHS - 1) + [True]
    assert Done(1, 8) in ended


def test_an_exception_of_a_task_is_raised_with_its_traceback() -> None:
    with Workers(1, list) as workers, pytest.raises(TaskError, match="invalid literal"):
        list(workers.run([partial(int, "x")]))


def test_ctrl_c_ends_the_processes_with_what_they_run() -> None:
    workers = Workers(2, list)
    with suppress(KeyboardInterrupt), workers:
        for _ in workers.run([partial(time.sleep, 3600), partial(time.sleep, 0)]):
            raise KeyboardInterrupt
    assert not any(worker.lives for worker in workers.workers)
