"""A sample of the proof's seeds, and what a run of a seed is; ``make prove`` runs the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.disk import METHODS, READS
from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.options import draw
from tests.simulation.prove import seeds
from tests.simulation.run import run
from tests.simulation.shrink import shrunk, told

SAMPLE, CHUNKS = 25, 6
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds_keep_every_invariant(chunk: int) -> None:
    """Whatever a seed draws of faults, deaths and callers, nothing leaks and everything comes to its end."""
    tally = seeds(100_000 + chunk * SAMPLE, SAMPLE)
    assert tally.runs == SAMPLE
    assert tally.faults == ()


@pytest.mark.parametrize(
    "seed",
    [
        *(7007203, 20004405, 20010040, 20011213, 20026515, 20037776),
        *(20052548, 20058483, 20059826, 20066229, 20071444, 20074146, 20087433),
    ],
)
def test_seeds_that_once_broke_an_invariant_keep_it(seed: int) -> None:
    """Some were errors of the engine, and some of the invariant; see ``docs/reliability.md``."""
    assert run(draw(seed)).breaches == ()


@pytest.mark.parametrize("seed", [1, 42])
def test_a_seed_replays_byte_for_byte(seed: int) -> None:
    """The same seed gives the same trace, so a failure can be seen again."""
    once, again = run(draw(seed)), run(draw(seed))
    assert once.effects > 0
    assert (once.digest, once.effects, once.seconds) == (again.digest, again.effects, again.seconds)


def test_a_seed_replays_in_another_process() -> None:
    """A run depends on its seed alone: neither on memory addresses nor on how this process hashes."""
    program = (
        "from tests.simulation.options import draw; from tests.simulation.run import run;"
        "print(run(draw(48)).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", program]
    there = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == run(draw(48)).digest


def test_a_broken_run_is_made_smaller_and_tells_its_story() -> None:
    """What is left of a broken run breaks the same invariant with fewer options."""
    bug = next(bug for bug in MUTANTS if bug.name == "record_after_create")
    with planted(bug):
        broken = run(draw(6))
        small = shrunk(broken)
    assert small.broken == broken.broken == "no_user_is_without_a_row"
    assert len(str(small.options)) < len(str(broken.options))
    assert "aws CreateUser: ok" in told(small)


def test_every_method_of_the_store_is_a_place_to_die_at_unless_it_only_reads() -> None:
    """A method that is added to the store's port is a write until it is listed among the reads."""
    assert READS <= METHODS
    assert {"begin", "write", "mark_range_revoking", "purge_tombstones"} <= METHODS - READS
