"""Checks over a real channel which calls the guard refuses, and with which errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details

from lessor.v1 import lease_pb2, system_pb2
from lessor_server.domain.access.caller import ROOT
from lessor_server.domain.errors.base import NotFound
from lessor_server.services.call import Caller
from lessor_server.services.channel_options import ConnectionLimits, channel_options
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.parsing import MAX_REQUEST_BYTES
from lessor_server.services.permissions import PERMISSIONS
from tests.support.access import FixedAccess, principal
from tests.support.call_notes import CallNotes
from tests.unit.services.test_status import decoded

LIMITS = ConnectionLimits(100, 100, 16 << 10, timedelta(minutes=15), timedelta(hours=1))
SERVICE = lease_pb2.DESCRIPTOR.services_by_name["LeaseService"]
PRINCIPALS = {
    "root-token": ROOT,
    "reader-token": principal("reader", "read aws/creds/app"),
}
SECRET_CAUSE = "password=hunter2"
BEARER = (("authorization", "Bearer root-token"),)


class Leases:
    """A service whose methods a test chooses; it remembers what it was asked."""

    def __init__(self) -> None:
        """Begin with a method that answers immediately."""
        self.asked: list[Message] = []
        self.callers: list[Caller] = []
        self.act: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)

    async def LookupLease(self, request: Message, caller: Caller) -> Message:  # noqa: N802
        """Do what the test wants and answer."""
        self.asked.append(request)
        self.callers.append(caller)
        await self.act()
        return lease_pb2.LookupLeaseResponse(lease=lease_pb2.Lease(owner=caller.principal.name))

    async def AbandonLeases(self, request: Message, caller: Caller) -> Message:  # noqa: N802
        """Answer as a method that operators alone may call."""
        return lease_pb2.AbandonLeasesResponse()


@dataclass
class Served:
    """A server on a port of its own, its guard, what it serves, and a channel to it."""

    guard: Guard
    leases: Leases
    channel: grpc.aio.Channel
    reports: list[tuple[str, BaseException]] = field(default_factory=list)

    async def call(
        self, method: str, data: bytes = b"", metadata: Any = BEARER, seconds: float | None = 10
    ) -> bytes:
        """Call a method with these bytes; return the bytes of the answer."""
        if "/" not in method:
            method = f"/lessor.v1.LeaseService/{method}"
        send: Any = self.channel.unary_unary(method)
        answer: bytes = await send(data, metadata=metadata, timeout=seconds)
        return answer

    async def refused(self, method: str, data: bytes = b"", metadata: Any = BEARER) -> Refused:
        """Call a method that must fail; return how it did."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, data, metadata)
        error = raised.value
        wire = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return Refused(error.code(), error.details() or "", decoded(bytes(wire)))


@dataclass(frozen=True)
class Refused:
    """What a caller sees of a refusal."""

    code: grpc.StatusCode
    message: str
    details: dict[type[Message], Message]

    @property
    def reason(self) -> str:
        """Return the reason of ErrorInfo."""
        info = self.details[details.ErrorInfo]
        assert isinstance(info, details.ErrorInfo)
        return str(info.reason)

    @property
    def fields(self) -> list[str]:
        """Return the fields of the violations."""
        bad = self.details[details.BadRequest]
        assert isinstance(bad, details.BadRequest)
        return [violation.field for violation in bad.field_violations]


@pytest.fixture(name="s")
async def served() -> AsyncIterator[Served]:
    """Serve a fake behind a guard on a port that the system chooses."""
    log = CallNotes()
    guard, leases = Guard(FixedAccess(PRINCIPALS), log, lambda: 0.0), Leases()
    server = grpc.aio.server(options=channel_options(LIMITS))
    server.add_generic_rpc_handlers((GrpcHandlers(guard).service(SERVICE, leases),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(guard, leases, channel, log.reports)
    await server.stop(0)


def lookup(lease_id: str = "x") -> bytes:
    """Return the bytes of a request."""
    return lease_pb2.LookupLeaseRequest(lease_id=lease_id).SerializeToString()


async def test_a_known_caller_with_the_capability_is_served(s: Served) -> None:
    answer = lease_pb2.LookupLeaseResponse.FromString(await s.call("LookupLease", lookup("id")))
    assert answer.lease.owner == "root"
    assert s.leases.asked == [lease_pb2.LookupLeaseRequest(lease_id="id")]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", "Bearer "),),
        (("authorization", "root-token"),),
        (("authorization", "Basic root-token"),),
        (("authorization-bin", b"Bearer root-token"),),
        (("authorization", "Bearer root-token"), ("authorization", "Bearer root-token")),
        (("authorization", "Bearer root-token"), ("authorization", "Bearer reader-token")),
        (("authorization", "Bearer wrong"), ("authorization", "Bearer root-token")),
        (("authorization", ""), ("authorization", "Bearer root-token")),
        (("authorization", "Bearer root-token"), ("authorization", "Basic root-token")),
        (("authorization", "Bearer root-token, Bearer root-token"),),
    ],
)
async def test_an_unknown_caller_is_refused_before_a_byte_is_parsed(s: Served, metadata: Any) -> None:
    for data in (lookup(), b"\xff\xff\xff"):
        refused = await s.refused("LookupLease", data, metadata)
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        assert refused.reason == "UNAUTHENTICATED"
    assert s.leases.asked == []


async def test_the_scheme_of_a_token_is_case_insensitive(s: Served) -> None:
    """RFC 6750 and RFC 7235."""
    await s.call("LookupLease", lookup(), (("authorization", "bearer root-token"),))


async def test_a_caller_without_the_capability_is_refused_with_its_name_and_the_path(s: Served) -> None:
    request = lease_pb2.AbandonLeasesRequest(prefix="aws/creds/app/").SerializeToString()
    refused = await s.refused("AbandonLeases", request, (("authorization", "Bearer reader-token"),))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.reason == "PERMISSION_DENIED"
    assert "update and sudo on sys/leases/revoke-force/aws/creds/app/" in refused.message


@pytest.mark.parametrize("method", ["RevokePrefix", "/lessor.v1.LeaseService/Nope", "/other.Service/Nope"])
async def test_a_method_without_an_implementation_is_unimplemented(s: Served, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await s.call(method)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_do_not_parse_are_invalid(s: Served, data: bytes) -> None:
    refused = await s.refused("LookupLease", data)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == [""]
    assert s.leases.asked == []


async def test_an_unknown_field_is_refused_with_its_number(s: Served) -> None:
    refused = await s.refused("LookupLease", lookup() + b"\xa0\x06\x01")
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == ["#100"]


async def test_a_request_that_is_too_large_is_invalid(s: Served) -> None:
    refused = await s.refused("LookupLease", b"\x0a" * (MAX_REQUEST_BYTES + 1))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(MAX_REQUEST_BYTES + 1) in refused.message
    assert s.leases.asked == []


async def test_an_error_of_ours_has_its_details(s: Served) -> None:
    async def fail() -> None:
        raise NotFound("lease", "aws/creds/app/x")

    s.leases.act = fail
    refused = await s.refused("LookupLease", lookup())
    assert refused.code is grpc.StatusCode.NOT_FOUND
    resource = refused.details[details.ResourceInfo]
    assert isinstance(resource, details.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("lease", "aws/creds/app/x")


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, AssertionError, OSError])
async def test_an_unforeseen_error_is_internal_with_a_reference_and_no_text(
    s: Served, kind: type[Exception]
) -> None:
    async def fail() -> None:
        raise kind(SECRET_CAUSE)

    s.leases.act = fail
    refused = await s.refused("LookupLease", lookup())
    assert refused.code is grpc.StatusCode.INTERNAL
    assert "ref-1" in refused.message
    assert SECRET_CAUSE not in refused.message
    assert SECRET_CAUSE not in str(refused.details)
    ((method, error),) = s.reports
    assert method == "LeaseService.LookupLease"
    assert SECRET_CAUSE in str(error)
    s.leases.act = lambda: asyncio.sleep(0)
    await s.call("LookupLease", lookup())


async def test_the_implementation_has_the_deadline_less_the_time_of_the_answer(s: Served) -> None:
    """Without a deadline it has a minute."""
    await s.call("LookupLease", lookup(), seconds=5)
    await s.call("LookupLease", lookup(), seconds=None)
    short, default = (caller.seconds for caller in s.leases.callers)
    assert 3.0 < short < 5.0
    assert 55.0 < default <= 60.0


async def test_work_past_the_deadline_is_cancelled_with_our_error(s: Served) -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    s.leases.act = hang
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await s.call("LookupLease", lookup(), seconds=2.0)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(30):
        await ended.wait()


async def test_a_drain_waits_for_calls_in_flight_and_refuses_new_ones(s: Served) -> None:
    going, begun = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await going.wait()

    s.leases.act = wait
    async with asyncio.TaskGroup() as group:
        call = group.create_task(s.call("LookupLease", lookup("slow")))
        await begun.wait()
        assert await s.guard.drain(0.0) == 1
        refused = await s.refused("LookupLease", lookup())
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert refused.reason == "DRAINING"
        drained = group.create_task(s.guard.drain(10))
        going.set()
    assert drained.result() == 0
    assert call.result()


def test_a_method_without_a_permission_stops_the_start() -> None:
    needs = {name: needs for name, needs in PERMISSIONS.items() if name != "SystemService.Backup"}
    guard = Guard(FixedAccess(PRINCIPALS), CallNotes(), lambda: 0.0, needs=needs)
    with pytest.raises(LookupError, match=r"SystemService\.Backup"):
        guard.methods(system_pb2.DESCRIPTOR.services_by_name["SystemService"], object())


def test_every_permission_belongs_to_a_method() -> None:
    from lessor_server.app import SERVICES

    methods = {f"{service.name}.{method.name}" for service in SERVICES for method in service.methods}
    assert set(PERMISSIONS) == methods
