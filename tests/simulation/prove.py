"""The proof in several processes: seeds, every single death, pairs of deaths, and planted bugs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS, Scenario

CHUNK, REPLAYED_EACH = 50, 100
"""Seeds a task; one in so many seeds is run twice, and its two traces must be the same."""

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
class Tally:
    """The result of some runs; ``faults`` are journals, ready to print."""

    runs: int = 0
    two: int = 0
    three: int = 0
    """How many of the runs had two replicas, and how many three."""
    effects: int = 0
    seconds: float = 0.0
    faults: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(
            self.runs + other.runs,
            self.two + other.two,
            self.three + other.three,
            self.effects + other.effects,
            self.seconds + other.seconds,
            self.faults + other.faults,
        )


@dataclass(frozen=True, slots=True)
class Kill:
    """What found a planted bug; ``by`` is empty if nothing did."""

    name: str
    by: str


def seeds(first: int, count: int) -> Tally:
    """Run ``count`` seeds; some of them twice."""
    tally = Tally()
    for seed in range(first, first + count):
        result = run(draw(seed))
        faults = [f"seed {seed}: {result.breaches[0]}\n{result.story}"] if result.breaches else []
        if seed % REPLAYED_EACH == 0 and run(draw(seed)).digest != result.digest:
            faults.append(f"seed {seed}: a second run left another trace")
        replicas = result.options.replicas
        tally += Tally(1, replicas == 2, replicas == 3, result.effects, result.seconds, tuple(faults))
    return tally


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


def prove_seeds(pool: ProcessPoolExecutor, ranges: Iterable[tuple[int, int]]) -> Tally:
    """Run ranges of seeds, each given by its first seed and its length."""
    return _sum(pool, [chunk for first, count in ranges for chunk in _chunks(first, count)])


def _chunks(first: int, count: int) -> Iterator[Callable[[], Tally]]:
    for start in range(first, first + count, CHUNK):
        yield partial(seeds, start, min(CHUNK, first + count - start))


def prove_deaths(pool: ProcessPoolExecutor) -> Tally:
    """Run every scenario with every single death."""
    return _sum(pool, [partial(deaths, scenario.name) for scenario in SCENARIOS])


def prove_pairs(pool: ProcessPoolExecutor) -> Tally:
    """Run issue and revoke with every pair of deaths."""
    firsts = [(name, first) for name in PAIRED for first in range(effects_of(name))]
    return _sum(pool, [partial(twice, name, first) for name, first in firsts])


def prove_mutants(pool: ProcessPoolExecutor) -> list[Kill]:
    """Search for every planted bug."""
    return list(pool.map(hunt, range(len(MUTANTS))))


def _tally(plays: Iterable[Played]) -> Tally:
    tally = Tally()
    for played in plays:
        result = played.result
        faults = (f"{played}: {result.breaches[0]}\n{result.story}",) if result.breaches else ()
        tally += Tally(1, effects=result.effects, seconds=result.seconds, faults=faults)
    return tally


def _sum(pool: ProcessPoolExecutor, tasks: list[Callable[[], Tally]]) -> Tally:
    return sum(_done(pool, tasks), Tally())


def _done(pool: ProcessPoolExecutor, tasks: list[Callable[[], T]]) -> Iterator[T]:
    for future in [pool.submit(task) for task in tasks]:
        yield future.result()


def silence() -> None:
    """Suppress the standard error of intended deaths, in a process that does nothing else."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
