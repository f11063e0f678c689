"""Checks when traces are on, and how the OTEL_* variables choose their export."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from lessor_server.adapters.observing.log import LogLevel, make_logger
from lessor_server.adapters.tracing.provider import TracesUnusable, build_provider
from lessor_server.tracing_start import open_tracing, wants_traces

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "lessor"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_traces_are_on_if_a_variable_asks_for_them(environ: dict[str, str], wanted: bool) -> None:
    assert wants_traces(environ) is wanted


async def test_without_such_a_variable_there_is_nothing() -> None:
    logger = make_logger(LogLevel("info"), "json", io.StringIO())
    async with open_tracing({}, logger) as tracer:
        assert tracer is None


@pytest.fixture(name="environ")
def exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Set the variables of the process too: the SDK reads them itself."""
    for name, value in ENDPOINT.items():
        monkeypatch.setenv(name, value)
    return dict(ENDPOINT)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp,zipkin"}, "OTEL_TRACES_EXPORTER names"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "carrier pigeon"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is"),
    ],
)
def test_an_unknown_export_is_an_error_that_names_the_variable(
    environ: dict[str, str], more: dict[str, str], problem: str
) -> None:
    with pytest.raises(TracesUnusable, match=problem):
        build_provider(environ | more, "1.2.3")


@pytest.mark.parametrize(
    ("protocol", "module"),
    [
        ("grpc", "opentelemetry.exporter.otlp.proto.grpc"),
        ("http/protobuf", "opentelemetry.exporter.otlp.proto.http"),
    ],
)
def test_the_protocol_chooses_the_exporter(environ: dict[str, str], protocol: str, module: str) -> None:
    provider = build_provider(environ | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}, "1.2.3")
    (processor,) = provider._active_span_processor._span_processors
    assert type(processor.span_exporter).__module__.startswith(module)
    provider.shutdown()


def test_the_service_is_called_lessor_unless_a_variable_names_it(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = build_provider(environ, "1.2.3")
    about = provider.resource.attributes
    assert (about["service.name"], about["service.version"]) == ("lessor", "1.2.3")
    provider.shutdown()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "vending")
    provider = build_provider({**environ, "OTEL_SERVICE_NAME": "vending"}, "1.2.3")
    assert provider.resource.attributes["service.name"] == "vending"
    provider.shutdown()
