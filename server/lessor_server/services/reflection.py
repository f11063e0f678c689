"""Server reflection, as v1alpha and as v1: the messages of both are the same on the wire.

Newer tools ask for v1 first; the library serves v1alpha alone.
Source: grpc.reflection.v1 in grpc/grpc-proto, "reflection.proto".
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1 = "grpc.reflection.v1.ServerReflection"
METHOD = "ServerReflectionInfo"


def handlers(services: Iterable[str]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both versions, which tell of ``services`` and of themselves."""
    # Loaded, it is served too: without it a person sees an error's details as base64.
    assert error_details_pb2.DESCRIPTOR.package == "google.rpc"
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*services, V1, reflection.SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    names = (V1, reflection.SERVICE_NAME)
    return tuple(grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names)


def _describe_v1() -> None:
    """Let v1 be described as well as listed: its file is that of v1alpha under another name."""
    file = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, FileDescriptorProto()))
