"""Checks the traces of calls, with an in-memory exporter: from a caller's metadata to each request to AWS."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2 as details
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.support import builders
from tests.support.access import FixedAccess
from tests.support.clients import Lessor, refused, until
from tests.support.engine_world import Clocks, Points
from tests.support.fake_audit import FakeAudit
from tests.support.gateways import KEY, root
from tests.support.memory_store import MemoryStore
from tests.support.plain_keyring import PlainKeyring
from tests.support.standin_control import StandIn

from lessor.v1 import creds_pb2, lease_pb2
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.aws.query_client import QueryClient
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.observing.events import EventLog
from lessor_server.adapters.observing.log import LogLevel, make_logger
from lessor_server.adapters.tracing.tracer import Tracer
from lessor_server.domain.access.caller import ROOT
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.services.audit import CallAudit
from lessor_server.services.creds import CredsService
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.lease import LeaseService

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = (("authorization", "Bearer root-token"), ("traceparent", f"00-{TRACE}-{PARENT}-01"))


@dataclass
class Traced:
    """A server in this process, its caller, and what it left behind."""

    engine: Engine
    lessor: Lessor
    spans: InMemorySpanExporter
    log: io.StringIO
    audit: FakeAudit
    aws: StandIn

    def finished(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.kind is kind]

    def names(self, kind: SpanKind) -> list[str]:
        return [span.name for span in self.finished(kind)]

    async def generate(self, role: str = "app") -> creds_pb2.GenerateCredentialsResponse:
        request = creds_pb2.GenerateCredentialsRequest(mount="aws", role=role)
        return await self.lessor.creds.GenerateCredentials(request, metadata=CALLER, timeout=20)

    async def revoke(self, lease_id: str) -> None:
        request = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=True)
        await self.lessor.leases.RevokeLease(request, metadata=CALLER, timeout=20)


@asynccontextmanager
async def serving(engine: Engine, tracer: Tracer, log: EventLog, audit: FakeAudit) -> AsyncIterator[Lessor]:
    """Serve an engine behind a guard on a port that the system chooses."""
    calls = CallAudit(audit, draw_id=lambda: "request-1")
    guard = Guard(FixedAccess({"root-token": ROOT}), log, lambda: 0.0, audit=calls, observer=tracer)
    services = (
        CredsService(engine.issuer, engine.credential_stream, engine.static_roles),
        LeaseService(engine.leases, engine.prefixes, engine.reconciler, engine.lease_events),
    )
    server, handlers = grpc.aio.server(), GrpcHandlers(guard)
    server.add_generic_rpc_handlers(tuple(handlers.service(one.DESCRIPTOR, one) for one in services))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Lessor(channel)
    finally:
        await server.stop(0)


@pytest.fixture(name="t")
async def traced() -> AsyncIterator[Traced]:
    spans, stream, audit = InMemorySpanExporter(), io.StringIO(), FakeAudit()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer, rng = Tracer(provider, "0"), random.Random(1)
    log = EventLog(make_logger(LogLevel("info"), "json", stream), rng)
    store = MemoryStore(Clocks(), Points())
    keyring = PlainKeyring()
    store.data_keys, store.seals = [keyring.first], keyring
    keyring.load(store.data_keys)
    async with (
        StandIn.start() as aws,
        QueryClient("lessor/test", SystemClock().wall) as client,
    ):
        gateway = AwsGateway(client, Routes((aws.url,)), observer=tracer)
        outside = Dependencies(store, gateway, keyring, log, log.report, rng)
        async with run_engine(outside, EngineConfig(root_rules=RootRules((aws.url,)))) as engine:
            await engine.mounts.enable(builders.mount(), "test")
            await engine.mounts.set_root("aws", "", lambda _: root(aws.url).config, "test")
            await engine.roles.put("aws", "app", "", lambda _: builders.role(), "test")
            async with serving(engine, tracer, log, audit) as lessor:
                spans.clear()
                yield Traced(engine, lessor, spans, stream, audit, aws)
    provider.shutdown()


async def test_a_trace_leads_from_the_caller_to_each_request_to_aws(t: Traced) -> None:
    answer = await t.generate()
    await t.revoke(answer.lease_id)
    calls = t.finished(SpanKind.SERVER)
    assert [span.name for span in calls] == [
        "lessor.v1.CredsService/GenerateCredentials",
        "lessor.v1.LeaseService/RevokeLease",
    ]
    assert [format(span.parent.span_id, "016x") for span in calls if span.parent] == [PARENT, PARENT]
    requests = t.finished(SpanKind.CLIENT)
    assert {format(span.context.trace_id, "032x") for span in (*calls, *requests)} == {TRACE}
    parents = {span.name: span.parent.span_id for span in requests if span.parent}
    issue, revoke = (span.context.span_id for span in calls)
    assert parents["AWS CreateUser"] == parents["AWS CreateAccessKey"] == issue
    assert parents["AWS DeleteAccessKey"] == parents["AWS DeleteUser"] == revoke
    assert all(span.attributes["aws.request_id"] for span in requests)


async def test_the_trace_is_named_in_the_log_the_audit_and_the_error(t: Traced) -> None:
    answer = await t.generate()
    refusal = await refused(t.generate("absent"))
    info = refusal.detail(details.ErrorInfo)
    assert (info.reason, info.metadata["trace_id"]) == ("NOT_FOUND", TRACE)
    assert {record.trace_id for record in t.audit.records} == {TRACE}
    lines = [json.loads(line) for line in t.log.getvalue().splitlines()]
    issued = next(line for line in lines if line["event"] == "issued")
    assert (issued["lease_id"], issued["trace_id"]) == (answer.lease_id, TRACE)


async def test_work_without_a_caller_belongs_to_no_trace_of_a_caller(t: Traced) -> None:
    """The line of an enabled mount was written before any call."""
    await t.generate()
    lines = [json.loads(line) for line in t.log.getvalue().splitlines()]
    assert [line for line in lines if line["event"] == "created" and "trace_id" in line] == []


async def test_the_probes_of_an_outage_belong_to_no_caller(t: Traced) -> None:
    """They go on for as long as the outage does."""
    answer = await t.generate()
    await t.aws.down()
    await t.revoke(answer.lease_id)

    async def find_probes() -> list[ReadableSpan]:
        return [span for span in t.finished(SpanKind.CLIENT) if span.name == "AWS GetUser"]

    probes = await until(find_probes, bool)
    assert all(span.parent is None for span in probes)
    lines = [json.loads(line) for line in t.log.getvalue().splitlines()]
    assert [line for line in lines if line["event"] == "account_paused" and "trace_id" in line] == []


async def test_a_call_without_a_trace_begins_one(t: Traced) -> None:
    await refused(t.lessor.raw("lessor.v1.LeaseService/CountLeases"))
    (span,) = t.finished(SpanKind.SERVER)
    assert span.parent is None
    assert span.attributes["rpc.response.status_code"] == "UNAUTHENTICATED"
    assert span.status.status_code is StatusCode.UNSET


async def test_spans_name_neither_callers_nor_leases(t: Traced) -> None:
    answer = await t.generate()
    await t.revoke(answer.lease_id)
    text = "".join(span.to_json() for span in t.spans.get_finished_spans())
    assert answer.lease_id not in text
    assert answer.access_key not in text
    assert KEY not in text
