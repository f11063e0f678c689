"""Many leases fall due at once, at a test's length; ``python -m tests.fire`` runs the scenarios longer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fire.drains import outage, rate, storm
from tests.fire.environment import Environment, run_environment

pytestmark = [pytest.mark.fire, pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AWS_SECONDS = 0.02


@pytest_asyncio.fixture(loop_scope="module")
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    """Run a server and its AWS for one scenario."""
    async with run_environment(tmp_path, AWS_SECONDS) as made:
        yield made


async def test_an_outage_delays_revocations_and_nothing_else(environment: Environment) -> None:
    """What fell due while AWS was away goes in due order; reads stay quick, an issue says when to retry."""
    await outage(environment, 40, 3, random.Random(3))


async def test_a_set_rate_is_used_and_never_exceeded(environment: Environment) -> None:
    """As AWS counts, no second holds more calls than the rate, and 95 % of it is used while work waits."""
    await rate(environment, 130, 200, random.Random(4))


async def test_a_storm_of_expiries_goes_in_order_while_issuing_goes_on(environment: Environment) -> None:
    """Leases that end in one second are revoked in due order, and callers are served before them."""
    figures = await storm(environment, 100, 160, random.Random(5))
    assert figures["issued meanwhile"] > 3
