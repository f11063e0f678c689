"""Server reflection, as v1alpha and as v1: both have the same messages on the wire.

Newer tools try v1 first; the library serves only v1alpha.
Source: grpc.reflection.v1 in grpc/grpc-proto, "reflection.proto".
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterable
from typing import cast

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from lessor_server.services.call import Caller
from lessor_server.services.grpc_handlers import GrpcHandlers

V1 = "grpc.reflection.v1.ServerReflection"
DESCRIPTOR = descriptor_pool.Default().FindServiceByName(reflection.SERVICE_NAME)


class Reflection:
    """Describes the services of the server; each message of a stream gets one answer."""

    def __init__(self, services: Iterable[str]) -> None:
        """Describe ``services``, full names, and reflection itself."""
        # The import also serves these types: without them, tools print an error's details as base64.
        assert error_details_pb2.DESCRIPTOR.package == "google.rpc"
        self._library = reflection.aio.ReflectionServicer((*services, V1, reflection.SERVICE_NAME))

    def handlers(self, grpc_handlers: GrpcHandlers) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers of both versions."""
        return tuple(grpc_handlers.service(DESCRIPTOR, self, name) for name in (V1, reflection.SERVICE_NAME))

    async def ServerReflectionInfo(
        self, request: pb.ServerReflectionRequest, _: Caller
    ) -> pb.ServerReflectionResponse:
        """Answer one message."""
        _describe_v1()
        answers = cast(
            "AsyncIterator[pb.ServerReflectionResponse]",
            self._library.ServerReflectionInfo(_one(request), None),
        )
        return await anext(answers)


async def _one(request: pb.ServerReflectionRequest) -> AsyncIterator[pb.ServerReflectionRequest]:
    yield request


@functools.cache
def _describe_v1() -> None:
    """Make v1 describable too: its file is that of v1alpha under another name.

    It takes as long as a twentieth of a start, so it waits for the first call.
    """
    file = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, FileDescriptorProto()))
