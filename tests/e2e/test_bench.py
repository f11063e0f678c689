"""Checks that the servers of the bench run with some of their parts replaced."""

from __future__ import annotations

from pathlib import Path

import aioboto3
import pytest
from bench.lessor import PLAIN, environment, lessor, prepare
from bench.plain import turn
from bench.server import NO_SDK, NO_STORE

from tests.support.standin_control import StandIn

TOKEN = "the-root-token-of-a-test"


@pytest.mark.parametrize("variant", [NO_SDK, NO_STORE])
def test_a_server_with_replaced_parts_issues(variant: str, tmp_path: Path) -> None:
    env = environment(tmp_path / "data", "http://127.0.0.1:9")
    with lessor(env, tmp_path / "log", variant) as server:
        prepare(server, "http://127.0.0.1:9")
        assert server.issue_one(PLAIN).startswith(f"aws/creds/{PLAIN}/")


async def test_the_peer_creates_what_a_server_creates() -> None:
    async with StandIn.start() as aws:
        session = aioboto3.Session(aws_access_key_id="plain", aws_secret_access_key="plain")
        async with session.client("iam", region_name="us-east-1", endpoint_url=aws.url) as iam:
            await turn(iam, clients=1, count=2)
        assert [call["outcome"] for call in await aws.calls("CreateAccessKey")] == ["ok", "ok"]
