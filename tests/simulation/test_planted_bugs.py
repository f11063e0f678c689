"""Three planted bugs are found in every run of the slow tests; ``make prove`` hunts all of them."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.prove import hunt

QUICK = ("no_such_entity_trusted_at_once", "activate_without_generation", "like_for_a_prefix")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    """The proof has teeth: a bug planted on purpose does not go unseen."""
    index = [bug.name for bug in MUTANTS].index(name)
    assert hunt(index).by


@pytest.mark.parametrize("bug", MUTANTS, ids=lambda bug: bug.name)
def test_a_planted_bug_changes_what_is_there(bug: Mutant) -> None:
    """A change of the product that leaves a bug without its place fails here, not only in `make prove`."""
    with planted(bug):
        pass


def test_there_are_enough_planted_bugs() -> None:
    """Every planted bug has a name of its own and a sentence."""
    assert len({bug.name for bug in MUTANTS}) == len(MUTANTS) >= 25
    assert all(bug.sentence for bug in MUTANTS)
