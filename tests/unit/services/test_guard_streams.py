"""Checks that a stream without an end is ended only by its caller, a deadline or a drain."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from lessor.v1 import lease_pb2
from lessor_server.domain.access.caller import ROOT
from lessor_server.services.call import Caller
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.permissions import UNBOUNDED_STREAMS
from tests.support.access import FixedAccess
from tests.support.call_notes import CallNotes

SERVICE = lease_pb2.DESCRIPTOR.services_by_name["LeaseService"]
WATCH, PREFIX = "/lessor.v1.LeaseService/WatchLeases", "/lessor.v1.LeaseService/RevokePrefix"
SECONDS = 30.0


class Leases:
    """A service whose streams yield what a test puts in, and note when they end."""

    def __init__(self) -> None:
        """Begin with nothing to yield."""
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.callers: list[Caller] = []
        self.open = 0
        self.changed = asyncio.Event()
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def _stream(self, caller: Caller, *, lasting: bool) -> AsyncIterator[Message | None]:
        self.callers.append(caller)
        self.open += 1
        self.changed.set()
        try:
            if lasting:
                await self.may_begin.wait()
                yield None
            while True:
                yield await self.messages.get()
        finally:
            await self.may_end.wait()
            self.open -= 1
            self.changed.set()

    def WatchLeases(self, _: Message, caller: Caller) -> AsyncIterator[Message | None]:  # noqa: N802
        """Stream for ever."""
        return self._stream(caller, lasting=True)

    def RevokePrefix(self, _: Message, caller: Caller) -> AsyncIterator[Message | None]:  # noqa: N802
        """Stream for ever too, though its kind should not."""
        return self._stream(caller, lasting=False)

    async def until_open(self, count: int) -> None:
        """Wait until so many streams are open."""
        async with asyncio.timeout(SECONDS):
            while self.open != count:
                self.changed.clear()
                await self.changed.wait()


class Served:
    """A guard over the service, and a channel to it."""

    def __init__(self, guard: Guard, leases: Leases, channel: grpc.aio.Channel) -> None:
        """Hold the three."""
        self.guard = guard
        self.leases = leases
        self._channel = channel

    def stream(self, method: str = WATCH, seconds: float | None = None) -> Any:
        """Begin a stream."""
        call: Any = self._channel.unary_stream(method)
        return call(b"", metadata=(("authorization", "Bearer x"),), timeout=seconds)


@pytest.fixture(name="s")
async def served() -> AsyncIterator[Served]:
    """Serve on a port that the system chooses."""
    guard, leases = Guard(FixedAccess({"x": ROOT}), CallNotes(), lambda: 0.0), Leases()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((GrpcHandlers(guard).service(SERVICE, leases),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(guard, leases, channel)
    await server.stop(0)


async def ended(stream: Any) -> grpc.aio.AioRpcError:
    """Read a stream to its end, which must be an error."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in stream:
                pass
    return raised.value


async def test_headers_are_sent_when_the_stream_has_started(s: Served) -> None:
    stream = s.stream()
    async with asyncio.timeout(SECONDS):
        await stream.initial_metadata()
    await s.leases.until_open(1)
    await s.leases.messages.put(lease_pb2.WatchLeasesResponse(lease_id="x"))
    async with asyncio.timeout(SECONDS):
        message = await anext(aiter(stream))
    assert lease_pb2.WatchLeasesResponse.FromString(message).lease_id == "x"
    stream.cancel()


async def test_no_headers_are_sent_before_the_stream_has_started(s: Served) -> None:
    """A caller who waits for the headers misses no event."""
    s.leases.may_begin.clear()
    stream = s.stream()
    await s.leases.until_open(1)
    async with asyncio.TaskGroup() as group:
        headers = group.create_task(stream.initial_metadata())
        done, _ = await asyncio.wait([headers], timeout=0.2)
        assert not done
        s.leases.may_begin.set()
    stream.cancel()


async def test_a_stream_that_never_starts_ends_at_its_deadline(s: Served) -> None:
    s.leases.may_begin.clear()
    assert (await ended(s.stream(seconds=0.3))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await s.leases.until_open(0)


async def test_only_lasting_streams_have_no_deadline_by_default(s: Served) -> None:
    streams = [s.stream(), s.stream(PREFIX)]
    await s.leases.until_open(2)
    seconds = sorted(caller.seconds for caller in s.leases.callers)
    assert 55 < seconds[0] <= 60
    assert seconds[1] == math.inf
    for stream in streams:
        stream.cancel()


async def test_a_caller_s_deadline_ends_a_stream(s: Served) -> None:
    assert (await ended(s.stream(seconds=0.3))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await s.leases.until_open(0)


async def test_a_cancelled_stream_is_closed(s: Served) -> None:
    waiting, writing = s.stream(), s.stream()
    await s.leases.until_open(2)
    for _ in range(200):
        await s.leases.messages.put(lease_pb2.WatchLeasesResponse(lease_id="x" * 100_000))
    async with asyncio.timeout(SECONDS):
        await anext(aiter(waiting))
    waiting.cancel()
    writing.cancel()
    await s.leases.until_open(0)
    assert await s.guard.drain(SECONDS) == 0


async def test_a_drain_ends_an_lasting_stream_immediately(s: Served) -> None:
    watch = s.stream()
    await s.leases.messages.put(lease_pb2.WatchLeasesResponse(lease_id="x"))
    async with asyncio.timeout(SECONDS):
        await anext(aiter(watch))  # from here on it is not in its beginning, which a drain ends otherwise
    other = s.stream(PREFIX)
    await s.leases.until_open(2)
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(ended(watch))
        assert await s.guard.drain(0.5) == 1
    assert answer.result().code() is grpc.StatusCode.UNAVAILABLE
    assert "stopping" in (answer.result().details() or "")
    assert s.leases.open == 1
    other.cancel()
    assert await s.guard.drain(SECONDS) == 0


async def test_a_drain_ignores_a_stream_that_is_already_ending(s: Served) -> None:
    watch = s.stream()
    await s.leases.until_open(1)
    s.leases.may_end.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(ended(watch))
        assert await s.guard.drain(0.0) == 1
        assert await s.guard.drain(0.0) == 1
        s.leases.may_end.set()
    assert await s.guard.drain(SECONDS) == 0


def test_every_lasting_method_is_a_stream() -> None:
    from lessor_server.app import SERVICES
    from lessor_server.services import health

    streams = {
        f"{service.name}.{method.name}"
        for service in (*SERVICES, health.DESCRIPTOR)
        for method in service.methods
        if method.server_streaming
    }
    assert streams >= UNBOUNDED_STREAMS
