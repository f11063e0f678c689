"""The proof in several processes: every single death, pairs of deaths, and planted bugs."""

from __future__ import annotations

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
from tests.simulation.progress import Lines
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.tally import Tally
from tests.simulation.workers import Died, Done, Task, TaskError, Workers

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
