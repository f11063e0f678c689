"""Checks that the servers of the bench run with some of their parts replaced."""

from __future__ import annotations

from pathlib import Path

import aioboto3
import pytest
from bench.children import lessor_server
from bench.plain import turn
from bench.server import NO_SDK, NO_STORE

from lessor.v1 import config_pb2, role_pb2
from tests.support.clients import connect
from tests.support.server_process import bare_environment
from tests.support.standin_control import StandIn

TOKEN = "the-root-token-of-a-test"


@pytest.mark.parametrize("variant", [NO_SDK, NO_STORE])
async def test_a_server_with_replaced_parts_issues(variant: str, tmp_path: Path) -> None:
    env = {**bare_environment(), "LESSOR_ROOT_TOKEN": TOKEN}
    with lessor_server(variant, tmp_path, env) as (_, address):
        async with connect(address, TOKEN) as lessor:
            await lessor.config.EnableMount(config_pb2.EnableMountRequest())
            root = config_pb2.RootConfig(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="not-a-secret")
            await lessor.config.SetRoot(config_pb2.SetRootRequest(config=root))
            await lessor.put_role("", "reader", credential_type=role_pb2.Role.IAM_USER)
            made = await lessor.generate("", "reader")
            assert made.lease_id.startswith("aws/creds/reader/")


async def test_the_peer_creates_what_a_server_creates() -> None:
    async with StandIn.start() as aws:
        session = aioboto3.Session(aws_access_key_id="plain", aws_secret_access_key="plain")
        async with session.client("iam", region_name="us-east-1", endpoint_url=aws.url) as iam:
            await turn(iam, clients=1, count=2)
        assert [call["outcome"] for call in await aws.calls("CreateAccessKey")] == ["ok", "ok"]
