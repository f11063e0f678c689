"""Runs in short the scenarios in which many leases fall due; ``python -m tests.fire`` runs them longer."""

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


async def test_an_outage_delays_only_revocations(environment: Environment) -> None:
    await outage(environment, 40, 3, random.Random(3))


async def test_a_fixed_rate_is_used_and_never_exceeded(environment: Environment) -> None:
    await rate(environment, 130, 200, random.Random(4))


async def test_many_expiries_are_revoked_in_order_while_issues_succeed(environment: Environment) -> None:
    figures = await storm(environment, 100, 160, random.Random(5))
    assert figures["issued meanwhile"] > 3
