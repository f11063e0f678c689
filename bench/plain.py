"""The peer: the same three calls by aioboto3 as a user writes it, in a process of its own.

``python -m bench.plain URL`` reads one order a line, ``{"clients", "count"}``, and answers ``{}`` when done.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import count as numbers
from typing import Any

import aioboto3

from bench.lessor import POLICY

_NUMBERS = numbers(1)


async def credential(iam: Any) -> None:  # noqa: ANN401 - aioboto3 has no types
    """Make a user with an inline policy and a key."""
    name = f"plain-{next(_NUMBERS)}"
    tags = [{"Key": key, "Value": name} for key in ("instance", "lease", "role")]
    await iam.create_user(UserName=name, Path="/plain/", Tags=tags)
    await iam.put_user_policy(UserName=name, PolicyName="plain", PolicyDocument=POLICY)
    await iam.create_access_key(UserName=name)


async def turn(iam: Any, clients: int, count: int) -> None:  # noqa: ANN401
    """Make ``count`` credentials, ``clients`` at a time."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await credential(iam)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def main(url: str) -> None:
    """Carry out orders until there are no more."""
    session = aioboto3.Session(aws_access_key_id="plain", aws_secret_access_key="plain")
    loop = asyncio.get_running_loop()
    async with session.client("iam", region_name="us-east-1", endpoint_url=url) as iam:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await turn(iam, **json.loads(line))
            print("{}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
