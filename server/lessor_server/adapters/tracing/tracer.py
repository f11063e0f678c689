"""Spans of OpenTelemetry at two seams: each call to the server, and each request to AWS.

A call continues the trace that its metadata names (W3C Trace Context, or what OTEL_PROPAGATORS says). Tasks
inherit the span of their call, so requests to AWS are its children. No span has an identity, a lease id or a
value of a request. Names and attributes follow OpenTelemetry's semantic conventions for RPC and AWS SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from lessor_server.engine.meter import OK, current_trace_id

_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The codes that are errors of the server's span (semantic conventions for gRPC)."""


class Tracer:
    """Begins and ends spans."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        """Give finished spans to ``provider``."""
        self._tracer = provider.get_tracer("lessor", version)

    def begin_call(
        self, service: str, method: str, metadata: Callable[[], Mapping[str, str]], /
    ) -> Callable[[str], None]:
        """Begin the span of a call in the current task; return what ends it with its status code."""
        parent = propagate.extract(metadata(), Context())
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        name = f"{service}/{method}" if service else "unknown method"
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, about if service else None)
        attached = context.attach(trace.set_span_in_context(span, parent))
        # It stays set for the rest of the task: the answer with the error's details comes after the span.
        current_trace_id.set(trace.format_trace_id(span.get_span_context().trace_id))

        def end(code: str) -> None:
            span.set_attribute("rpc.response.status_code", code)
            if code in _SERVER_ERRORS:
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()
            context.detach(attached)

        return end

    def begin_aws_call(self, mount: str, action: str) -> Callable[[str, str, str], None]:
        """Begin the span of a request to AWS; return what ends it."""
        about = {"rpc.system": "aws-api", "rpc.method": action, "lessor.mount": mount}
        span = self._tracer.start_span(f"AWS {action}", kind=SpanKind.CLIENT, attributes=about)

        def end(code: str, request_id: str, _date: str) -> None:
            if request_id:
                span.set_attribute("aws.request_id", request_id)
            if code != OK:
                span.set_attribute("error.type", code or "cancelled")
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()

        return end
