"""Provides each kind of store, and the stand-in for AWS, to the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.standin_fixtures import aws, url
from tests.support.stores import OPENERS, Bench, bench

__all__ = ["aws", "url"]


@pytest.fixture(name="b", params=list(OPENERS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Open each kind of store in turn, with a mount and a root."""
    async with bench(request.param, tmp_path) as made:
        yield made
