"""Checks that the simulation finds planted bugs of each kind; ``make prove`` searches for all of them."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.prove import hunt

QUICK = (
    *("no_such_entity_trusted_immediately", "claim_not_released", "secret_in_an_event"),
    *("answer_without_its_record", "what_others_claimed_is_taken", "lost_key_not_deleted"),
    *("tombstones_dropped_early", "request_ids_not_unique", "session_begun_after_the_call"),
)
"""Bugs of each kind that are found in less than a second."""


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    index = [bug.name for bug in MUTANTS].index(name)
    assert hunt(index).by


@pytest.mark.parametrize("bug", MUTANTS, ids=lambda bug: bug.name)
def test_every_planted_bug_can_be_planted(bug: Mutant) -> None:
    """A change of the product that removes what a bug patches fails here, not only in `make prove`."""
    with planted(bug):
        pass


def test_every_planted_bug_has_its_own_name_and_a_description() -> None:
    assert len({bug.name for bug in MUTANTS}) == len(MUTANTS) >= 25
    assert all(bug.sentence for bug in MUTANTS)
