"""The proof in several processes: seeds, every single death, pairs of deaths, and planted bugs."""

from __future__ import annotations

import gc
import logging
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tests.simulation import (
    audit_mutants,
    owner_mutants,
    replica_mutants,
    rotation_mutants,
    sealing_mutants,
    store_mutants,
)
from tests.simulation.crash_points import PAIRED, Played, by_name, pairs, play, singles
from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.options import draw
from tests.simulation.progress import Lines, Progress, follow
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.tally import Tally
from tests.simulation.workers import Died, Done, Task, TaskError, Workers

REPLAYED_EACH = 100
"""One in so many seeds is run twice, and its two traces must be the same."""

MUTANT_SEEDS = 1000
T = TypeVar("T")
PLANTED_BESIDE = (
    store_mutants,
    replica_mutants,
    rotation_mutants,
    owner_mutants,
    sealing_mutants,
    audit_mutants,
)  # imported so that their bugs are on the list


@dataclass(frozen=True, slots=True)
class Kill:
    """What found a planted bug; ``by`` is empty if nothing did."""

    name: str
    by: str


def seeds(first: int, count: int) -> Tally:
    """Run ``count`` seeds; some of them twice."""
    tally = Tally()
    for seed in range(first, first + count):
        try:
            tally += _one(seed)
        except Exception:  # noqa: BLE001 - an error of the simulator is a fault of its seed
            tally += Tally(
                1, faults=(f"seed {seed}: the run raised\n{traceback.format_exc()}{_again(seed)}",)
            )
    return tally


def _one(seed: int) -> Tally:
    result = run(draw(seed))
    faults = []
    if result.breaches:
        faults.append(f"seed {seed}: {result.breaches[0]}\n{result.story}\n{_again(seed)}")
    if seed % REPLAYED_EACH == 0 and run(draw(seed)).digest != result.digest:
        faults.append(f"seed {seed}: a second run left another trace\n{_again(seed)}")
    replicas = result.options.replicas
    return Tally(1, replicas == 2, replicas == 3, result.effects, result.seconds, tuple(faults))


def _again(seed: int) -> str:
    return f"to repeat it: python -m tests.simulation --seed {seed}"


def deaths(name: str, step: int = 1) -> Tally:
    """Run one scenario with each outcome of each of its effects, or of each ``step``-th one."""
    return _tally(singles(by_name(name), step))


def twice(name: str, first: int) -> Tally:
    """Run one scenario with each outcome of one effect and then of each effect that follows."""
    return _tally(pairs(by_name(name), first))


def hunt(index: int) -> Kill:
    """Plant one bug, and search for it by deaths in its own scenario, by seeds, and by all other deaths."""
    bug = MUTANTS[index]
    with planted(bug):
        found = _found_by_deaths(scenario for scenario in SCENARIOS if scenario.name == bug.scenario)
        found = found or _found_by_seeds() or _found_by_deaths(SCENARIOS)
    return Kill(bug.name, found)


def _found_by_seeds() -> str:
    results = ((seed, run(draw(seed))) for seed in range(MUTANT_SEEDS))
    return next((f"seed {seed}: {result.broken}" for seed, result in results if result.breaches), "")


def _found_by_deaths(scenarios: Iterable[Scenario]) -> str:
    plays = (played for scenario in scenarios for played in singles(scenario))
    return next((f"{played}: {played.result.broken}" for played in plays if played.result.breaches), "")


def effects_of(name: str) -> int:
    """Return how many effects a scenario has without faults."""
    return len(play(by_name(name), {}).names)


def prove_seeds(workers: Workers, progress: Progress, lines: Lines) -> Tally:
    """Run the seeds that remain; return the result of all."""
    return follow(workers.run([partial(seeds, *chunk) for chunk in progress.remaining()]), progress, lines)


def prove_deaths(workers: Workers, lines: Lines) -> Tally:
    """Run every scenario with every single death."""
    tasks = [partial(deaths, scenario.name) for scenario in SCENARIOS]
    return sum(_results(workers, lines, "scenarios with every death", tasks), Tally())


def prove_pairs(workers: Workers, lines: Lines) -> Tally:
    """Run issue and revoke with every pair of deaths."""
    firsts = [(name, first) for name in PAIRED for first in range(effects_of(name))]
    tasks = [partial(twice, name, first) for name, first in firsts]
    return sum(_results(workers, lines, "deaths with every second one", tasks), Tally())


def prove_mutants(workers: Workers, lines: Lines) -> list[Kill]:
    """Search for every planted bug."""
    return _results(workers, lines, "planted bugs", [partial(hunt, index) for index in range(len(MUTANTS))])


def _results(workers: Workers, lines: Lines, what: str, tasks: list[Task[T]]) -> list[T]:
    """Return the results of ``tasks``, in their order."""
    results: dict[int, T] = {}
    for event in workers.run(tasks):
        match event:
            case Done(index, result):
                results[index] = result
            case Died(index):
                lines.say(f"{what}: the process of {tasks[index]} died with {event.exit_code}")
                if event.given_up:
                    raise TaskError(f"{tasks[index]} ended {event.times} processes")
        lines.offer(lambda: f"{len(results)} of {len(tasks)} {what}")
    return [results[index] for index in range(len(tasks))]


def _tally(plays: Iterable[Played]) -> Tally:
    tally = Tally()
    for played in plays:
        result = played.result
        faults = (f"{played}: {result.breaches[0]}\n{result.story}",) if result.breaches else ()
        tally += Tally(1, effects=result.effects, seconds=result.seconds, faults=faults)
    return tally


def prepare() -> None:
    """Hide the errors of intended deaths, and collect garbage only between runs."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()
    gc.disable()
