"""Kills and stops three real servers on one PostgreSQL database, under load of every kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fire.fleet import fleet_kills, run_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio]


async def test_kills_of_replicas_break_no_promise(tmp_path: Path) -> None:
    """No user is left, no lease ends early, no key is handed out twice."""
    async with run_fleet(tmp_path, random.Random(1), 0.02) as environment:
        figures = await fleet_kills(environment, 20, random.Random(1))
    assert figures["issued"] > 20
    assert (figures["killed"], figures["stopped"]) == (15, 5)
