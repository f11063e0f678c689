"""Paths of the server itself, below ``sys/``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from grpc_health.v1 import health_pb2

from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.reply import Reply
from lessor_server.http_edge.vault.routes import Operation, Route, Verb

CHECK: Final = "Health.Check"


async def read_health(call: VaultCall) -> Reply:
    """Answer 200 while the server serves, else 503."""
    health = await call.call(CHECK, lambda _: health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse)
    serves = health.status == health_pb2.HealthCheckResponse.SERVING
    return Reply(
        body={"initialized": True, "sealed": not serves, "standby": False},
        status=HTTPStatus.OK if serves else HTTPStatus.SERVICE_UNAVAILABLE,
    )


SYSTEM_ROUTES: Final = (
    Route("sys/health", {Verb.READ: Operation(read_health, (CHECK,))}, "Whether the server serves."),
)
