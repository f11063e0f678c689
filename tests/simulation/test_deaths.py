"""Tries a sample of the single deaths in each scenario; ``make prove`` tries all of them."""

from __future__ import annotations

import pytest

from tests.simulation.prove import deaths
from tests.simulation.scenarios import SCENARIOS

STEP, SLOW_STEP = 20, 13
"""Each so many-th death is played; the two have no common divisor, so that most are others."""
LONG = ("stopped", "rotate chain")
"""Scenarios whose deaths take minutes: here a sample of them."""


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_some_deaths_leave_nothing(name: str) -> None:
    tally = deaths(name, STEP)
    assert tally.runs > 2
    assert tally.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS if scenario.name not in LONG])
def test_more_deaths_leave_nothing(name: str) -> None:
    """Before an effect, after it, with its answer lost, and with no effect and a timeout."""
    tally = deaths(name, SLOW_STEP)
    assert tally.runs > 3
    assert tally.faults == ()
