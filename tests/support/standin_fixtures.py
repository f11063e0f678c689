"""The fixtures of tests that talk to the stand-in for AWS: one server a module, emptied for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.standin_control import StandIn, run_server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run one stand-in for this module."""
    with run_server() as at:
        yield at


@pytest.fixture
async def aws(url: str) -> AsyncIterator[StandIn]:
    """Talk to the stand-in, emptied."""
    async with StandIn.at(url) as standin:
        await standin.reset()
        yield standin
