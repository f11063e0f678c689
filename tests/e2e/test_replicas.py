"""Runs three real servers on one PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lessor.v1 import system_pb2
from tests.support.replica_servers import ReplicaServer, replicas
from tests.support.standin_control import StandIn

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def until_listed(server: ReplicaServer, count: int) -> system_pb2.GetInfoResponse:
    """Wait until GetInfo lists so many replicas; each server reads the table at least each 5 s."""
    for _ in range(100):
        info = await server.client.info()
        if len(info.replicas) == count:
            return info
        await asyncio.sleep(0.2)
    raise AssertionError(f"{len(info.replicas)} replicas are listed")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="fleet")
async def running(
    tmp_path_factory: pytest.TempPathFactory, aws: StandIn
) -> AsyncIterator[list[ReplicaServer]]:
    """Run three replicas that the tests of this module share."""
    folder = tmp_path_factory.mktemp("replicas")
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    async with replicas(folder, settings) as servers:
        await servers[0].client.enable("aws", aws.url)
        await servers[0].client.put_role("aws")
        yield servers


async def test_get_info_of_each_replica_lists_all(fleet: list[ReplicaServer]) -> None:
    names: set[str] = set()
    for server in fleet:
        info = await until_listed(server, 3)
        names |= {one.name for one in info.replicas}
        assert len(names) == 3
        for one in info.replicas:
            assert one.version == info.version
            assert abs(one.clock_difference.ToSeconds()) <= 1
            assert list(one.different_settings) == []


async def test_what_one_replica_stores_the_others_use_immediately(fleet: list[ReplicaServer]) -> None:
    made = await fleet[1].client.generate("aws")
    assert (await fleet[2].client.lookup(made.lease_id)).lease_id == made.lease_id
