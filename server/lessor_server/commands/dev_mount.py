"""Gives the embedded AWS to a fresh server, the way any client would: over gRPC."""

from __future__ import annotations

from typing import Final

import grpc

from lessor.v1 import config_pb2
from lessor_server.commands.embedded_aws import REGION, EmbeddedAws
from lessor_server.commands.loopback_client import CallFailed, LoopbackClient

MOUNT: Final = "aws"


async def give_root(client: LoopbackClient, aws: EmbeddedAws) -> None:
    """Enable ``aws/``, unless a former run did, and set its root to the key of ``aws``.

    Raises:
        CallFailed: The data directory holds something that stands in the way.
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
    await client.ask(client.config.SetRoot, config_pb2.SetRootRequest(mount=MOUNT, config=root))
