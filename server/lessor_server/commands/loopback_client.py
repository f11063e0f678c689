"""The gRPC client by which ``dev`` calls its own server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from lessor.v1 import config_pb2_grpc
from lessor_server.domain.secret import Secret

CALL_SECONDS: Final = 30
# A proxy of the environment must not be used for loopback.
_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class CallFailed(Exception):
    """The server refused a call, or did not answer; the text is the server's."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        """Keep the server's code and text."""
        super().__init__(error.details() or error.code().name)
        self.code = error.code()


class LoopbackClient:
    """Calls one server's ConfigService with one token."""

    def __init__(self, channel: grpc.aio.Channel, token: Secret) -> None:
        """Ask over ``channel``."""
        self.config = config_pb2_grpc.ConfigServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token.reveal()}"),)

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, token: Secret) -> AsyncIterator[LoopbackClient]:
        """Hold a channel to ``address`` (host:port) while the block runs."""
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            yield cls(channel, token)

    async def ask(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        """Make one call of at most 30 s.

        Raises:
            CallFailed: It was refused, or there was no answer.
        """
        try:
            return await method(request, metadata=self._metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error) from None
