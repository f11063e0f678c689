"""Server reflection, as v1alpha and as v1: the messages of both are the same on the wire.

Newer tools ask for v1 first; the library serves v1alpha alone.
Source: grpc.reflection.v1 in grpc/grpc-proto, "reflection.proto".
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1 = "grpc.reflection.v1.ServerReflection"
METHOD = "ServerReflectionInfo"


def handlers(services: Iterable[str]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both versions, which tell of ``services`` and of themselves."""
    # Loaded, it is served too: without it a person sees an error's details as base64.
    assert error_details_pb2.DESCRIPTOR.package == "google.rpc"
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    names = (V1, reflection.SERVICE_NAME)
    return tuple(grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names)
