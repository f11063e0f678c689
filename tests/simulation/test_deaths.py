"""A sample of the single deaths in each scenario; ``make prove`` plays them all."""

from __future__ import annotations

import pytest

from tests.simulation.prove import deaths
from tests.simulation.scenarios import SCENARIOS

STEP, SLOW_STEP = 20, 7
"""Each so many-th death is played; the two have no common divisor, so that most are others."""
LONG = ("stopped", "rotate chain")
"""Scenarios whose deaths take minutes: here a sample of them."""


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_some_deaths_leave_nothing(name: str) -> None:
    """A sample of all deaths; the slow tests play more of them, and ``make prove`` all."""
    tally = deaths(name, STEP)
    assert tally.runs > 2
    assert tally.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS if scenario.name not in LONG])
def test_more_deaths_leave_nothing(name: str) -> None:
    """A larger sample of them: before an effect, after it, done but unanswered, not done and timed out."""
    tally = deaths(name, SLOW_STEP)
    assert tally.runs > 3
    assert tally.faults == ()
