"""A sample of the proof in every test run; ``make prove`` runs the whole."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.options import draw
from tests.simulation.prove import deaths, hunt, seeds
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS

SAMPLE, CHUNKS = 25, 6
QUICK = ("no_such_entity_trusted_at_once", "activate_without_generation", "like_for_a_prefix")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds_keep_every_invariant(chunk: int) -> None:
    """Whatever a seed draws of faults, deaths and callers, nothing leaks and everything comes to its end."""
    tally = seeds(100_000 + chunk * SAMPLE, SAMPLE)
    assert tally.runs == SAMPLE
    assert tally.faults == ()


@pytest.mark.parametrize("seed", [1, 42])
def test_a_seed_replays_byte_for_byte(seed: int) -> None:
    """The same seed gives the same trace, so a failure can be seen again."""
    once, again = run(draw(seed)), run(draw(seed))
    assert once.effects > 0
    assert (once.digest, once.effects, once.seconds) == (again.digest, again.effects, again.seconds)


@pytest.mark.slow
@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_death_at_any_effect_leaves_nothing(name: str) -> None:
    """Each effect of the scenario, before it, done but unanswered, not done and timed out, after it."""
    tally = deaths(name)
    assert tally.runs > 4
    assert tally.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    """The proof has teeth: a bug planted on purpose does not go unseen."""
    index = [bug.name for bug in MUTANTS].index(name)
    assert hunt(index).by


def test_there_are_enough_planted_bugs() -> None:
    """Every planted bug has a name of its own and a sentence."""
    assert len({bug.name for bug in MUTANTS}) == len(MUTANTS) >= 25
    assert all(bug.sentence for bug in MUTANTS)
