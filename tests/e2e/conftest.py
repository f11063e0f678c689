"""One stand-in and one server for each module; a fresh mount with a root for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from tests.support.clients import NOBODY_THERE, Lessor, connect
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn


@pytest.fixture(scope="session")
def numbers() -> count[int]:
    """Give each mount its own number."""
    return count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aws() -> AsyncIterator[StandIn]:
    """Run an AWS that the tests of a module share."""
    async with StandIn.start() as standin:
        await standin.groups("developers")
        yield standin


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    """Run a server that the tests of a module share, and that may reach its AWS and a closed port."""
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": f"{aws.url},{NOBODY_THERE}"}
    async with serving(tmp_path_factory.mktemp("server"), settings) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lessor(server: ServerProcess) -> AsyncIterator[Lessor]:
    """Call the server as root."""
    async with connect(server.address, server.token) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def mount(lessor: Lessor, aws: StandIn, numbers: count[int]) -> AsyncIterator[str]:
    """Enable a mount of this test's own, with a root; AWS works again when the test is over."""
    name = f"mount{next(numbers)}"
    await lessor.enable(name, aws.url)
    yield name
    await aws.clear_faults()
    await aws.latency(0)
    await aws.account(visible_after=0, max_users=5000)
    await aws.up()
