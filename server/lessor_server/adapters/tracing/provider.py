"""Makes the provider of traces as the OTEL_* variables say, with the exporters that OpenTelemetry offers.

Sources: OpenTelemetry specification, "Environment Variable Specification" and "OTLP exporter configuration".
The SDK reads all other variables itself: sampler, resource, limits, batches, headers and certificates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from lessor_server.domain.errors.base import LessorError, shown

EXPORTERS: Final = {"otlp": "", "console": "console"}
PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
PROPAGATORS: Final = ("opentelemetry.trace", "opentelemetry.baggage", "opentelemetry.propagators")
"""The loggers of what reads trace contexts and baggage."""


class TracesUnusable(LessorError):
    """The OTEL_* variables ask for an export of traces that can't be started."""

    reason = "TRACES_UNUSABLE"
    fix = "correct the OTEL_* variables, or set OTEL_SDK_DISABLED=true"


def build_provider(environ: Mapping[str, str], version: str) -> TracerProvider:
    """Return a provider that exports by a thread of its own; raises ``TracesUnusable``."""
    about = {SERVICE_VERSION: version}
    if not environ.get("OTEL_SERVICE_NAME") and SERVICE_NAME not in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        about[SERVICE_NAME] = "lessor"
    exporters = load_exporters(environ)
    _quiet_propagators()
    try:
        provider = TracerProvider(resource=Resource.create(dict(about)), shutdown_on_exit=False)
        for load in exporters:
            provider.add_span_processor(BatchSpanProcessor(load()))
    except Exception as error:  # noqa: BLE001 - what the variables may be wrong about is much
        raise TracesUnusable(f"traces can't be exported: {type(error).__name__}: {error}") from None
    return provider


def load_exporters(environ: Mapping[str, str]) -> list[type[SpanExporter]]:
    """Return the classes of the exporters that the variables name; raises ``TracesUnusable``."""
    return [_load_exporter(name) for name in _exporter_names(environ)]


def _quiet_propagators() -> None:
    """Log nothing of a caller's malformed metadata: any stranger could fill the log with it."""
    for name in PROPAGATORS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _exporter_names(environ: Mapping[str, str]) -> list[str]:
    """Return the entry points of the exporters."""
    found = []
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        exporter = EXPORTERS.get(name.strip())
        if exporter is None:
            raise TracesUnusable(f"OTEL_TRACES_EXPORTER names {shown(name.strip())}, not otlp or console")
        found.append(exporter or _protocol(environ))
    return found


def _protocol(environ: Mapping[str, str]) -> str:
    """Return the entry point for OTLP over the protocol of the variables; without one it is gRPC."""
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    for variable in variables:
        if name := environ.get(variable, "").strip():
            if name not in PROTOCOLS:
                raise TracesUnusable(f"{variable} is {shown(name)}, not grpc or http/protobuf")
            return PROTOCOLS[name]
    return PROTOCOLS["grpc"]


def _load_exporter(name: str) -> type[SpanExporter]:
    """Return the class of an exporter."""
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: type[SpanExporter] = found.load()
        return exporter
    raise TracesUnusable(f"the exporter {name} is not installed: pip install 'lessor[otel]'")
