"""Runs a sample of the seeds, and checks that a seed can be replayed; ``make prove`` runs all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.disk import METHODS, READS
from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.options import draw
from tests.simulation.run import run
from tests.simulation.seeds import seeds
from tests.simulation.shrink import report, shrunk

SAMPLE, CHUNKS = 10, 6
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds_keep_every_invariant(chunk: int) -> None:
    tally = seeds(100_000 + chunk * SAMPLE, SAMPLE)
    assert tally.runs == SAMPLE
    assert tally.faults == ()


@pytest.mark.parametrize(
    "seed",
    [
        *(7007203, 20004405, 20010040, 20011213, 20026515, 20037776),
        *(20052548, 20058483, 20059826, 20066229, 20071444, 20074146, 20087433),
        *(20028508, 20067270, 20077496, 20099447),
    ],
)
def test_seeds_that_once_broke_an_invariant_keep_it(seed: int) -> None:
    """Some were errors of the engine, and some of the invariant; see ``docs/reliability.md``."""
    assert run(draw(seed)).breaches == ()


@pytest.mark.parametrize("seed", [1, 42])
def test_a_seed_replays_byte_for_byte(seed: int) -> None:
    once, again = run(draw(seed)), run(draw(seed))
    assert once.effects > 0
    assert (once.digest, once.effects, once.seconds) == (again.digest, again.effects, again.seconds)


def test_a_seed_replays_in_another_process() -> None:
    """A run must not depend on memory addresses or on hash randomization."""
    program = (
        "from tests.simulation.options import draw; from tests.simulation.run import run;"
        "print(run(draw(48)).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", program]
    there = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == run(draw(48)).digest


def test_the_process_that_hands_out_seeds_does_not_import_the_engine() -> None:
    program = "import tests.simulation.__main__, sys; print('lessor_server.engine.engine' in sys.modules)"
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == "False"


def test_a_broken_run_is_shrunk_and_its_journal_printed() -> None:
    bug = next(bug for bug in MUTANTS if bug.name == "record_after_create")
    with planted(bug):
        broken = run(draw(6))
        small = shrunk(broken)
    assert small.broken == broken.broken == "no_user_is_without_a_row"
    assert len(str(small.options)) < len(str(broken.options))
    assert "aws CreateUser: ok" in report(small)


def test_every_method_of_the_store_that_writes_is_a_crash_point() -> None:
    """A new method counts as a write until it is listed as a read."""
    assert READS <= METHODS
    assert {"begin", "write", "mark_range_revoking", "purge_tombstones"} <= METHODS - READS
