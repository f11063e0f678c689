"""Sets the embedded AWS as the root of a new server, over gRPC as any client would."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from lessor.v1 import config_pb2
from lessor_server.commands.dev.embedded_aws import REGION, EmbeddedAws
from lessor_server.commands.loopback_client import CallFailed, LoopbackClient

MOUNT: Final = "aws"
AWS_SECONDS: Final = 60.0
"""How long SetRoot is retried: the embedded AWS starts slowly on a busy machine."""
RETRY_SECONDS: Final = 0.5


async def give_root(client: LoopbackClient, aws: EmbeddedAws) -> None:
    """Enable ``aws/``, unless an earlier run did, and set its root to the key of ``aws``.

    If an earlier run left leases, SetRoot asks the embedded AWS which account the key belongs to.

    Raises:
        CallFailed: The data directory is in conflict, or the embedded AWS does not answer in a minute.
    """
    root = config_pb2.RootConfig(
        access_key=aws.access_key,
        secret_key=aws.secret_key.reveal(),
        region=REGION,
        iam_endpoint=aws.url,
        sts_endpoint=aws.url,
    )
    try:
        await client.ask(client.config.EnableMount, config_pb2.EnableMountRequest(mount=MOUNT))
    except CallFailed as failed:
        if failed.code is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    request = config_pb2.SetRootRequest(mount=MOUNT, config=root)
    late = asyncio.get_running_loop().time() + AWS_SECONDS
    while True:
        try:
            await client.ask(client.config.SetRoot, request)
            return
        except CallFailed as failed:
            if failed.code is not grpc.StatusCode.UNAVAILABLE or asyncio.get_running_loop().time() >= late:
                raise
        await asyncio.sleep(RETRY_SECONDS)
