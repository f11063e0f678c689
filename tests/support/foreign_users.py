"""Users that outsiders create on the tests' AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import boto3

from tests.support.clients import ROOT_KEY, ROOT_SECRET
from tests.support.standin_control import StandIn


async def make_user(aws: StandIn, name: str, path: str, tags: Mapping[str, str], age: float) -> None:
    """Create a user on AWS by hand, with a creation time ``age`` seconds ago."""
    iam = boto3.client(
        "iam",
        endpoint_url=aws.url,
        region_name="us-east-1",
        aws_access_key_id=ROOT_KEY,
        aws_secret_access_key=ROOT_SECRET,
    )
    await aws.account(clock_offset=-age)
    given = [{"Key": key, "Value": value} for key, value in tags.items()]
    await asyncio.to_thread(iam.create_user, UserName=name, Path=path, Tags=given)
    await aws.account(clock_offset=0)
