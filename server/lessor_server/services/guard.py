"""The one way in: every RPC is identified, authorised, parsed, given its deadline, and mapped on errors.

The handlers are built from the descriptors, with bytes in and messages out, so that a stranger is
refused before the parser sees a byte, and bytes that do not parse are INVALID_ARGUMENT. A method without
a rule stops the start; one without an implementation answers UNIMPLEMENTED. Nothing unmapped leaves:
an exception of ours that nobody foresaw is INTERNAL with a reference, its text only in the log.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from lessor_server.domain.access import Capability, Principal
from lessor_server.domain.errors import (
    DeadlineExceeded,
    Draining,
    Invalid,
    LessorError,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
    Violation,
)
from lessor_server.services import status

KEPT_BACK_SECONDS = 0.02
"""Taken off each deadline, so that the caller hears our answer and not its own clock."""

DEFAULT_SECONDS = 60.0
MOST_REQUEST_BYTES = 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and until when (the loop's time, perhaps for ever) an answer is of use."""

    principal: Principal
    until: float

    @property
    def seconds(self) -> float:
        """Return the seconds left."""
        return self.until - asyncio.get_running_loop().time()


T = TypeVar("T")
Serve = Callable[[Principal], Awaitable[T]]


class Identify(Protocol):
    """Tells who presents a token."""

    def __call__(self, token: str, /) -> Principal | None:
        """Return the principal of ``token``, or None where it is not known."""
        ...


class Report(Protocol):
    """Writes an unforeseen exception to the log."""

    def __call__(self, method: str, error: BaseException) -> str:
        """Return the reference under which the log has it."""
        ...


class Guard:
    """Wraps the implementations of services into gRPC handlers."""

    def __init__(
        self,
        identify: Identify,
        report: Report,
        rules: Mapping[str, Capability],
        lasting: Container[str] = (),
    ) -> None:
        """Let in whom ``identify`` knows and ``rules`` allow; ``lasting`` streams have no end of theirs."""
        self._identify = identify
        self._report = report
        self._rules = rules
        self._lasting = lasting
        self._watches: dict[asyncio.Timeout, None] = {}
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    def handlers(self, descriptor: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
        """Return the handlers of one service.

        Raises:
            LookupError: A method has no rule.
        """
        methods = {method.name: self._handler(method, implementation) for method in descriptor.methods}
        return grpc.method_handlers_generic_handler(descriptor.full_name, methods)

    async def drain(self, seconds: float) -> int:
        """Take no more calls, end the lasting ones, wait for the others; return how many are left."""
        self._draining = True
        for watch in self._watches:
            if not watch.expired():  # one whose time is over is being closed already
                watch.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self._calls

    def _handler(self, method: MethodDescriptor, implementation: object) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"{method.containing_service.name}.{method.name}"
        if name not in self._rules:
            raise LookupError(f"{name} has no rule in services/rules.py")
        entry = _Entry(
            name,
            self._rules[name],
            GetMessageClass(method.input_type),
            getattr(implementation, method.name, None),
            name in self._lasting,
        )
        serialize = GetMessageClass(method.output_type).SerializeToString

        async def unary(data: bytes, context: Context) -> Message:
            return await self._run(entry, context, self._answer(entry, data, context))

        async def stream(data: bytes, context: Context) -> None:
            await self._run(entry, context, self._answers(entry, data, context))

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
        return grpc.unary_unary_rpc_method_handler(unary, None, serialize)

    async def _run(self, entry: _Entry, context: Context, serve: Serve[T]) -> T:
        """Serve one call, or abort it with the status of what went wrong."""
        principal: Principal | None = None
        self._enter()
        try:
            principal = self._admitted(entry, context)
            return await serve(principal)
        except LessorError as error:
            told = error
        except Exception as error:  # noqa: BLE001 - nothing unmapped may leave
            told = LessorError(f"internal error, reference {self._report(entry.name, error)}")
        finally:
            self._leave()
        refusal = status.refusal(told, sees_root=principal is not None and principal.sees_root)
        await context.abort(refusal.code, refusal.message, ((status.DETAILS_KEY, refusal.details),))
        raise AssertionError("abort raises")

    def _admitted(self, entry: _Entry, context: Context) -> Principal:
        principal = self._identify(_token(context.invocation_metadata() or ()))
        if principal is None:
            raise Unauthenticated("no token, or one that is not known")
        if not principal.may(entry.capability):
            raise PermissionDenied(f"{entry.name} needs the right to {entry.capability.value}")
        if self._draining:
            raise Draining("the server is going down")
        return principal

    def _answer(self, entry: _Entry, data: bytes, context: Context) -> Serve[Message]:
        """Return what serves a unary call once its caller is known."""

        async def serve(principal: Principal) -> Message:
            request, caller = _admit(entry, data, principal, context)
            async with self._deadline(entry, caller):
                answer: Message = await entry.serve(request, caller)
                return answer

        return serve

    def _answers(self, entry: _Entry, data: bytes, context: Context) -> Serve[None]:
        """Return what serves a call that is answered by a stream of messages."""

        async def serve(principal: Principal) -> None:
            request, caller = _admit(entry, data, principal, context)
            async with aclosing(entry.serve(request, caller)) as answers:
                if entry.lasting:
                    async with self._deadline(entry, caller):
                        await anext(answers)  # no message: it says that the watch is on
                    # Tells the caller that nothing is missed from then on, however late the first message.
                    # Outside of the deadline: were it cancelled half-way, gRPC could send no status any more.
                    await context.send_initial_metadata(())
                async with self._deadline(entry, caller):
                    async for message in answers:
                        await context.write(message)

        return serve

    @asynccontextmanager
    async def _deadline(self, entry: _Entry, caller: Caller) -> AsyncIterator[None]:
        """End the block when the caller's time is over; a lasting call also when the server drains."""
        if entry.lasting and self._draining:
            raise Draining("the server is going down")
        timeout = asyncio.timeout_at(None if caller.until == math.inf else caller.until)
        if entry.lasting:
            self._watches[timeout] = None
        try:
            async with timeout:
                yield
        except TimeoutError:
            if entry.lasting and self._draining:
                raise Draining("the server is going down") from None
            raise DeadlineExceeded(f"{entry.name} was not done in time") from None
        finally:
            self._watches.pop(timeout, None)

    def _enter(self) -> None:
        self._calls += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One method: its name, what it needs, its request's class, and what serves it."""

    name: str
    capability: Capability
    request: type[Message]
    serve: Any
    """A coroutine function, or for a stream an async generator function; None where nothing serves it."""
    lasting: bool
    """A stream without an end of its own; it yields None first, once nothing is missed any more."""


def _admit(entry: _Entry, data: bytes, principal: Principal, context: Context) -> tuple[Message, Caller]:
    """Parse the request and note until when an answer is of use."""
    request = _parsed(entry.request, data)
    if entry.serve is None:
        raise Unimplemented(f"{entry.name} is not served by this version")
    left = cast("float | None", context.time_remaining())  # None where no deadline was sent
    default = math.inf if entry.lasting else DEFAULT_SECONDS
    seconds = default if left is None else left - KEPT_BACK_SECONDS
    return request, Caller(principal, asyncio.get_running_loop().time() + seconds)


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the bearer token (RFC 6750) of the metadata, or an empty text."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""


def _parsed(kind: type[Message], data: bytes) -> Message:
    """Return the request, or raise ``Invalid``: a field that this version does not know is not ignored."""
    if len(data) > MOST_REQUEST_BYTES:
        fault = f"the request has {len(data)} bytes"
        raise Invalid((Violation("", fault, f"send at most {MOST_REQUEST_BYTES}"),))
    try:
        request = kind.FromString(data)
    except DecodeError:
        raise Invalid((Violation("", f"the bytes are no {kind.DESCRIPTOR.full_name}", "send one"),)) from None
    unknown = list(_unknown(request))
    if unknown:
        raise Invalid(
            tuple(Violation(path, "is not known to this version", "leave it out") for path in unknown)
        )
    return request


def _unknown(message: Message, path: str = "") -> Iterable[str]:
    """Yield the paths of fields that the descriptors do not have, by number."""
    fields = UnknownFieldSet(message)
    for index in range(len(fields)):
        yield f"{path}#{fields[index].field_number}"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        if descriptor.message_type.file.package != "lessor.v1":
            continue
        for item in value if descriptor.is_repeated else (value,):
            yield from _unknown(item, f"{path}{descriptor.name}.")
