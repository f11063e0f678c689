"""Checks metrics, probes and traces of a real server over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509
from google.rpc import error_details_pb2 as details
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from lessor.v1 import creds_pb2, system_pb2
from lessor_server.adapters.metrics.families import FAMILIES
from tests.support.certificates import Authority
from tests.support.clients import Lessor, connect, refused
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
ON = {"LESSOR_METRICS_LISTEN": "127.0.0.1:0"}


@dataclass
class Measured:
    """A server with metrics, AWS, and a client of both."""

    process: ServerProcess
    lessor: Lessor
    aws: StandIn
    url: str

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()

    async def page(self) -> Page:
        """Return a page that is new."""
        await asyncio.sleep(1.1)  # pages are kept for a second
        status, text = await self.get("/metrics")
        assert status == 200
        return Page(text)


@dataclass(frozen=True)
class Page:
    """A page of metrics."""

    text: str

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name with these labels."""
        samples = (one for family in text_string_to_metric_families(self.text) for one in family.samples)
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def url_of(process: ServerProcess) -> str:
    """Return where a server serves its metrics."""
    line = next(line for line in process.log() if line["event"] == "serving_metrics")
    return f"http://{line['address']}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def m(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[Measured]:
    folder = tmp_path_factory.mktemp("measured")
    settings = {
        **ON,
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
        "LESSOR_AUDIT_FILE": str(folder / "audit.log"),
        # Kubernetes sets such variables for a Service called lessor.
        "LESSOR_PORT": "tcp://10.0.0.1:50051",
        "LESSOR_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "LESSOR_PORT_50051_TCP_ADDR": "10.0.0.1",
        "LESSOR_SERVICE_HOST": "10.0.0.1",
        "LESSOR_SERVICE_PORT": "50051",
        "LESSOR_SERVICE_PORT_METRICS": "9464",
    }
    async with serving(folder, settings) as process, connect(process.address, process.token) as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        yield Measured(process, lessor, aws, url_of(process))


async def test_the_page_has_every_family_and_moves_with_the_calls(m: Measured) -> None:
    issued, lags = "lessor_issue_seconds_count", "lessor_revocation_lag_seconds_count"
    before = await m.page()
    made = await m.lessor.generate("aws")
    await m.lessor.revoke(made.lease_id)
    await refused(m.lessor.generate("aws", "absent"))
    page = await m.page()
    assert {family.name for family in FAMILIES} <= {
        one.name for one in text_string_to_metric_families(page.text)
    }
    ok = {"type": "iam_user", "outcome": "ok"}
    assert page.value(issued, **ok) == before.value(issued, **ok) + 1
    assert page.value(lags) == before.value(lags) + 1
    assert page.value("lessor_aws_calls_total", mount="aws", action="deleteaccesskey", code="ok") >= 1
    assert page.value("grpc_server_handled_total", grpc_code="NOT_FOUND") >= 1
    assert page.value("lessor_audit_sink_up", sink="file") == 1
    assert page.value("lessor_store_commit_seconds_count") > 0
    for private in (made.lease_id, made.access_key, made.arn, "123456789012", "root-of-lessor", '"root"'):
        assert private not in page.text


async def test_an_aws_that_is_away_counts_as_no_answer_whatever_the_kind_of_error(m: Measured) -> None:
    await m.aws.down()
    await refused(m.lessor.generate("aws"))
    await m.aws.up()
    page = await m.page()
    assert page.value("lessor_aws_calls_total", code="no_answer") >= 1
    assert not re.search(r'lessor_aws_calls_total.*code="\w+error"', page.text)
    assert page.value("lessor_ready") == 1


async def test_probes_need_no_credential_and_tell_how_the_server_is(m: Measured) -> None:
    assert await m.get("/healthz") == (200, "ok\n")
    assert await m.get("/readyz") == (200, "ok\n")
    assert (await m.get("/"))[0] == 404


async def test_probes_work_where_callers_need_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    pair = authority.sign("server")
    settings = {
        **ON,
        "LESSOR_TLS_CERT_FILE": str(pair.cert),
        "LESSOR_TLS_KEY_FILE": str(pair.key),
        "LESSOR_TLS_CLIENT_CA_FILE": str(authority.ca),
    }
    async with (
        serving(tmp_path, settings) as process,
        aiohttp.ClientSession() as session,
        session.get(f"{url_of(process)}/readyz") as answer,
        session.get(f"{url_of(process)}/metrics") as metrics,
    ):
        assert (answer.status, await answer.text()) == (200, "ok\n")
        expiry = Page(await metrics.text()).value("lessor_certificate_expiry_timestamp_seconds")
        assert (
            expiry == x509.load_pem_x509_certificate(pair.cert.read_bytes()).not_valid_after_utc.timestamp()
        )


async def test_a_taken_port_stops_the_start_and_an_empty_one_turns_the_listener_off(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = ServerProcess()
        with pytest.raises(Exception, match="LESSOR_METRICS_LISTEN"):
            await server.start(tmp_path, {"LESSOR_METRICS_LISTEN": address})
    async with serving(tmp_path, {"LESSOR_METRICS_LISTEN": ""}) as server:
        assert [line for line in server.log() if line["event"] == "serving_metrics"] == []


def request_of(mount: str) -> creds_pb2.GenerateCredentialsRequest:
    return creds_pb2.GenerateCredentialsRequest(mount=mount, role="app")


class Collector:
    """An OTLP collector over HTTP that keeps the spans."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(data))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.requests: list[ExportTraceServiceRequest] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def names(self) -> dict[str, set[str]]:
        """Return the names of the spans of each trace."""
        found: dict[str, set[str]] = {}
        for resource in (one for request in self.requests for one in request.resource_spans):
            for span in (one for scope in resource.scope_spans for one in scope.spans):
                found.setdefault(span.trace_id.hex(), set()).add(span.name)
        return found


async def test_spans_are_exported_as_the_variables_say(tmp_path: Path, aws: StandIn) -> None:
    """The trace's id is in the log, the audit and the error, and the last spans leave at the stop."""
    collector, trace = Collector(), "4bf92f3577b34da6a3ce929d0e0e4736"
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
        "LESSOR_AUDIT_FILE": str(tmp_path / "audit.log"),
    }
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
    async with serving(tmp_path, settings) as process, connect(process.address, process.token) as lessor:
        await lessor.enable("traced", aws.url)
        await lessor.put_role("traced")
        request = request_of("traced")
        made = await lessor.creds.GenerateCredentials(request, metadata=metadata, timeout=30)
        refusal = await refused(
            lessor.creds.GenerateCredentials(request_of("absent"), metadata=metadata, timeout=30)
        )
        assert refusal.detail(details.ErrorInfo).metadata["trace_id"] == trace
        issued = next(line for line in process.log() if line.get("lease_id") == made.lease_id)
        assert issued["trace_id"] == trace
        await process.stop()
        assert {"AWS CreateUser", "AWS CreateAccessKey"} < collector.names[trace]
        records = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
        assert trace in [one.get("trace_id") for one in records if one.get("lease_id") == made.lease_id]
    collector.server.shutdown()


async def test_unusable_variables_of_traces_stop_the_start(tmp_path: Path) -> None:
    server = ServerProcess()
    with pytest.raises(Exception, match="OTEL_TRACES_EXPORTER names"):
        await server.start(tmp_path, {"OTEL_TRACES_EXPORTER": "zipkin"})


async def test_malformed_trace_contexts_do_not_fill_the_log(tmp_path: Path) -> None:
    """Any stranger can send them; OpenTelemetry would log a line for each."""
    settings = {"OTEL_TRACES_EXPORTER": "console"}
    malformed = (
        ("traceparent", "x" * 4000),
        ("traceparent", f"00-{'d' * 32}-00f067aa0ba902b7-01"),
        ("tracestate", ",".join(f"k{number}=v" for number in range(500))),
        ("baggage", "a=" + "x" * 9000),
    )
    async with serving(tmp_path, settings) as process, connect(process.address, "no-such-token") as stranger:
        for pair in malformed:
            metadata = (malformed[1], pair) if pair[0] == "tracestate" else (pair,)
            request = system_pb2.WhoAmIRequest()
            await refused(stranger.system.WhoAmI(request, metadata=metadata, timeout=10))
        loggers = {str(line.get("logger", "")) for line in process.log()}
    assert [name for name in loggers if name.startswith("opentelemetry")] == []
