"""Runs the scenarios of tests/fire in short; ``python -m tests.fire`` runs them longer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lessor_server.domain.lease_id import IdRange
from tests.fire.environment import Environment, run_environment
from tests.fire.kills import kills, sound
from tests.fire.renewals import renewals
from tests.fire.soak import soak
from tests.support.stores import bench

pytestmark = [pytest.mark.fire, pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AWS_SECONDS = 0.02


@pytest_asyncio.fixture(loop_scope="module")
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    """Run a server and its AWS for one scenario."""
    async with run_environment(tmp_path, AWS_SECONDS) as made:
        yield made


async def test_kills_at_random_moments_break_no_promise(environment: Environment) -> None:
    """No user without a row, no lease past its end, no answer forgotten."""
    figures = await kills(environment, 12, random.Random(6))
    assert figures["issued"] > 50
    assert figures["renewed"] > 0
    assert figures["prefix revoked"] > 0


async def test_a_database_with_an_open_prefix_is_sound(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.store.open_prefix(IdRange.of_mount("aws"))
    sound(tmp_path)


async def test_a_renewal_at_the_expiry_is_answered_correctly(environment: Environment) -> None:
    """After OK the key is valid until its new expiry; after a refusal it is deleted."""
    figures = await renewals(environment, 30, random.Random(2))
    assert figures["renewed"] > 0
    assert figures["refused"] > 0


async def test_steady_load_leaves_nothing_behind(environment: Environment) -> None:
    """And memory does not grow without a bound."""
    await soak(environment, 4, 60 * 1024, random.Random(8))
