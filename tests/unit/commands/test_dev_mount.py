"""Checks how the embedded AWS becomes the root of ``aws/``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from lessor.v1 import config_pb2
from lessor_server.commands.dev.embedded_aws import EmbeddedAws
from lessor_server.commands.dev.mount import give_root
from lessor_server.commands.loopback_client import CallFailed, LoopbackClient
from lessor_server.domain.secret import Secret
from tests.support.virtual_loop import virtual

AWS = EmbeddedAws("http://127.0.0.1:5000", "AKIAIOSFODNN7EXAMPLE", Secret("x" * 40))


class Server:
    """Answers the first calls of SetRoot with these codes, and then OK."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        """Begin with no call."""
        self.config = SimpleNamespace(EnableMount="EnableMount", SetRoot="SetRoot")
        self.codes = list(codes)
        self.roots: list[str] = []

    async def ask(self, method: str, request: config_pb2.SetRootRequest) -> None:
        """Answer one call."""
        if method != "SetRoot":
            return
        self.roots.append(request.config.access_key)
        if self.codes:
            metadata = grpc.aio.Metadata()
            raise CallFailed(grpc.aio.AioRpcError(self.codes.pop(0), metadata, metadata, "no"))


async def give(server: Server) -> None:
    """Give the embedded AWS to the server."""
    await give_root(cast("LoopbackClient", server), AWS)


@virtual
async def test_the_root_is_set_again_while_the_embedded_aws_does_not_answer() -> None:
    """The first calls to it may take longer than a server waits."""
    server = Server(*[grpc.StatusCode.UNAVAILABLE] * 5)
    await give(server)
    assert server.roots == [AWS.access_key] * 6


@virtual
async def test_an_embedded_aws_that_never_answers_ends_the_start() -> None:
    """Within a minute, with the server's own error."""
    server = Server(*[grpc.StatusCode.UNAVAILABLE] * 1000)
    with pytest.raises(CallFailed):
        await give(server)
    assert 100 < len(server.roots) < 130


@virtual
async def test_a_root_that_is_refused_is_not_set_again() -> None:
    server = Server(grpc.StatusCode.FAILED_PRECONDITION)
    with pytest.raises(CallFailed):
        await give(server)
    assert len(server.roots) == 1
