"""Tries a sample of the single deaths in each scenario; ``make prove`` tries all of them."""

from __future__ import annotations

import pytest

from tests.simulation.prove import deaths
from tests.simulation.scenarios import SCENARIOS

STEP, LONG_STEP = 20, 101
"""Each so many-th death is played."""
LONG = ("stopped", "shared rate")
"""Scenarios whose deaths take minutes: here a smaller sample of them."""


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_some_deaths_leave_nothing(name: str) -> None:
    """Before an effect, after it, with its answer lost, and with no effect and a timeout."""
    tally = deaths(name, LONG_STEP if name in LONG else STEP)
    assert tally.runs > 2
    assert tally.faults == ()
