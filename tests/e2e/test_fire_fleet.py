"""Runs in short the rate that three servers share; ``python -m tests.fire`` runs it longer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fire.fleet import run_fleet, shared_rate

pytestmark = [pytest.mark.fire, pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio]

RATE = 300


async def test_three_servers_use_their_rate_and_never_exceed_it(tmp_path: Path) -> None:
    async with run_fleet(tmp_path, random.Random(1), 0.02, LESSOR_AWS_RATE=str(RATE)) as environment:
        figures = await shared_rate(environment, RATE, 8)
    assert figures["used by 1"] >= 0.95
