"""Checks that a message is requested only from callers who may call, and that it has to arrive."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2

from lessor_server.domain.access.caller import ROOT, Credential, Principal
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.services import health, reflection
from lessor_server.services.anonymous import MAX_PLACES
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.grpc_handlers import GrpcExchange, GrpcHandlers
from lessor_server.services.guard import ADMISSION_SECONDS, DEFAULT_SECONDS, CallRefusal, Guard
from lessor_server.services.health import Health
from lessor_server.services.parsing import MAX_PUBLIC_BYTES
from lessor_server.services.reflection import Reflection
from tests.support.access import FixedAccess
from tests.support.call_notes import CallNotes
from tests.support.virtual_loop import virtual
from tests.unit.services.test_guard import PRINCIPALS, SERVICE, Leases, lookup


class AbortedError(Exception):
    """The guard ended a call with this status."""


class Context:
    """A call as gRPC shows it to a handler; ``messages`` are what the caller sends."""

    def __init__(self, token: str, *messages: Any, seconds: float | None = None) -> None:
        self._token = token
        self._messages = list(messages)
        self._seconds = seconds
        self.reads = 0
        self.answers: list[Any] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        return self._seconds

    async def write(self, message: Any) -> None:
        self.answers.append(message)

    async def read(self) -> Any:
        self.reads += 1
        if not self._messages:
            await asyncio.get_running_loop().create_future()
        return self._messages.pop(0)

    async def abort(self, code: grpc.StatusCode, text: str, _: Any) -> None:
        raise AbortedError(code, text)


class Call:
    """A guard over the fake service, called without a wire between."""

    def __init__(self, max_calls: int = 100) -> None:
        self.leases = Leases()
        self.log = CallNotes()
        limits = IdentityLimits(calls=max_calls)
        self.guard = Guard(FixedAccess(PRINCIPALS), self.log, lambda: 0.0, limits)
        self._handlers = GrpcHandlers(self.guard).service(SERVICE, self.leases)

    async def __call__(self, context: Context, method: str = "LookupLease") -> Any:
        class Details:
            def __init__(self, name: str) -> None:
                self.method = f"/lessor.v1.LeaseService/{name}"
                self.invocation_metadata = ()

        handler: Any = self._handlers.service(Details(method))  # type: ignore[arg-type]
        return await handler.stream_unary(None, context)

    async def refused(self, context: Context, method: str = "LookupLease") -> tuple[grpc.StatusCode, str]:
        """Call and return the status of the refusal."""
        with pytest.raises(AbortedError) as caught:
            await self(context, method)
        code, text = caught.value.args
        return code, text


@virtual
async def test_an_unknown_caller_is_never_asked_for_a_message() -> None:
    call = Call()
    stranger = Context("wrong", lookup())
    assert (await call.refused(stranger))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert stranger.reads == 0
    assert call.log.refusals == ["UNAUTHENTICATED"]


@virtual
async def test_a_message_that_does_not_arrive_ends_the_call() -> None:
    loop = asyncio.get_running_loop()
    for seconds, wanted in ((None, ADMISSION_SECONDS), (3.0, 3.0)):
        begin = loop.time()
        code, _ = await Call().refused(Context("root-token", seconds=seconds))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert loop.time() - begin == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize("seconds", [None, ADMISSION_SECONDS + 2])
@virtual
async def test_an_answer_may_take_longer_than_a_message_but_not_longer_than_the_deadline(
    seconds: float | None,
) -> None:
    call, loop = Call(), asyncio.get_running_loop()
    call.leases.act = lambda: asyncio.sleep(ADMISSION_SECONDS + 1)
    assert await call(Context("root-token", lookup(), seconds=seconds))
    call.leases.act = lambda: asyncio.sleep(3600)
    begin = loop.time()
    code, text = await call.refused(Context("root-token", lookup(), seconds=seconds))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not finish in time" in text
    assert loop.time() - begin == pytest.approx(seconds or DEFAULT_SECONDS, abs=0.1)


@pytest.mark.parametrize(("seconds", "wanted"), [(None, ADMISSION_SECONDS), (3.0, 3.0)])
@virtual
async def test_a_caller_that_cannot_be_identified_in_time_is_refused(
    seconds: float | None, wanted: float
) -> None:
    class SlowAccess(FixedAccess):
        async def find(self, credential: Credential) -> Principal:  # type: ignore[override]
            await asyncio.sleep(wanted - 1)  # in time
            if credential.authorization == ("Bearer unknown",):
                await asyncio.sleep(3600)
            return ROOT

    call, loop = Call(), asyncio.get_running_loop()
    call.guard._access = SlowAccess(PRINCIPALS)
    assert await call(Context("root-token", lookup(), seconds=seconds))
    begin, stranger = loop.time(), Context("unknown", lookup(), seconds=seconds)
    code, text = await call.refused(stranger)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "not identified in time" in text
    assert loop.time() - begin == pytest.approx(wanted, abs=0.1)
    assert stranger.reads == 0


@virtual
async def test_a_certificate_beside_a_token_is_not_read() -> None:
    class Reading(Context):
        def auth_context(self) -> dict[str, list[bytes]]:
            raise AssertionError("nobody needs it")

    assert await Call()(Reading("root-token", lookup()))


@virtual
async def test_a_call_that_ends_without_a_message_is_invalid() -> None:
    code, text = await Call().refused(Context("root-token", grpc.aio.EOF))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no message was sent" in text


@virtual
async def test_more_calls_than_the_limit_are_refused_and_the_others_go_on() -> None:
    call = Call(max_calls=2)
    going = asyncio.Event()

    async def wait() -> None:
        await going.wait()

    call.leases.act = wait
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(call(Context("root-token", lookup()))) for _ in range(2)]
        await asyncio.sleep(1)
        code, text = await call.refused(Context("root-token", lookup()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "maximum of calls in progress, 2" in text
        going.set()
    assert all(task.result() for task in first)
    assert await call(Context("root-token", lookup()))


@virtual
async def test_known_callers_are_refused_during_a_drain_without_a_wait() -> None:
    call = Call()
    await call.guard.drain(0.0)
    begin = asyncio.get_running_loop().time()
    for _ in range(100):
        assert (await call.refused(Context("root-token", lookup())))[0] is grpc.StatusCode.UNAVAILABLE
    assert asyncio.get_running_loop().time() == begin


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [1_000_000, 200_000])
async def test_the_message_of_a_refused_call_is_freed_immediately(size: int) -> None:
    """Otherwise many refused messages of 1 MiB fill the memory before the garbage collector runs."""
    call, data = Call(), b"\xff" * size
    held = sys.getrefcount(data)
    with without_garbage_collection():
        code, _ = await call.refused(Context("root-token", data))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sys.getrefcount(data) == held


class PublicCalls:
    """Calls of methods that need no credential, all on one connection."""

    def __init__(self) -> None:
        guard = Guard(FixedAccess(PRINCIPALS), CallNotes(), lambda: 0.0)
        self._guard = guard
        self._methods = dict(guard.methods(health.DESCRIPTOR, Health([])))
        self._methods |= dict(guard.methods(reflection.DESCRIPTOR, Reflection([])))
        self._contexts: list[Context] = []
        self.ended = 0

    async def __call__(self, method: str, context: Context) -> Message | CallRefusal | None:
        self._contexts.append(context)
        outcome = await self._guard.serve(self._methods[method], GrpcExchange(context))
        self.ended += 1
        return outcome

    @property
    def asked_for_messages(self) -> int:
        """Return how many calls in progress have asked for their message."""
        return sum(context.reads > 0 for context in self._contexts) - self.ended


@pytest.mark.parametrize("method", ["Check", "List"])
@virtual
async def test_a_public_call_whose_message_is_no_longer_awaited_ends_immediately(method: str) -> None:
    """Until it ends, gRPC takes in its message: a flood of them would fill the memory."""
    calls = PublicCalls()
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(calls(method, Context("")))
        await asyncio.sleep(0.005)  # between two turns
        while calls.ended < 100:
            await asyncio.sleep(0.01)
            assert calls.asked_for_messages <= MAX_PLACES


@virtual
async def test_no_message_of_a_conversation_waits_for_a_turn_in_memory() -> None:
    data = reflection_pb2.ServerReflectionRequest(list_services="x" * 1_000).SerializeToString()

    class Talking(Context):
        async def read(self) -> bytes:
            self.reads += 1
            return data

    talking, held = Talking(""), sys.getrefcount(data)
    async with asyncio.TaskGroup() as group:
        talk = group.create_task(PublicCalls()("ServerReflectionInfo", talking))
        await asyncio.sleep(10)
        assert 10 < talking.reads < 150  # it waits for a turn
        assert sys.getrefcount(data) == held
        talk.cancel()


@pytest.mark.parametrize("method", ["Check", "Watch", "ServerReflectionInfo"])
@virtual
async def test_a_large_message_to_a_public_method_is_not_parsed(method: str) -> None:
    """Its worst content takes 8 ms, and anybody may send it."""
    outcome = await PublicCalls()(method, Context("", b"\x0a\x00" * MAX_PUBLIC_BYTES))
    assert isinstance(outcome, CallRefusal)
    assert outcome.error.kind is ErrorKind.INVALID
    assert f"send at most {MAX_PUBLIC_BYTES}" in str(outcome.error)
