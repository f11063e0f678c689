"""The entry point of every RPC: identifies and authorises the caller, parses the message, maps the errors.

The handlers are built from the descriptors. They start with the metadata of a call, so a caller without
permission is refused before its message is read. The server does not start if a method has no rule. A
method without an implementation answers UNIMPLEMENTED. An unexpected exception becomes INTERNAL with a
reference; only the log has its text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lessor_server.domain.access_levels import ANONYMOUS, Capability, Principal
from lessor_server.domain.errors.base import (
    DeadlineExceeded,
    Draining,
    ErrorKind,
    InternalError,
    Invalid,
    LessorError,
    PermissionDenied,
    TooManyCalls,
    Unauthenticated,
    Unimplemented,
    Violation,
)
from lessor_server.services import parsing, status
from lessor_server.services.anonymous import AnonymousCalls

DEADLINE_MARGIN_SECONDS = 0.02
"""Subtracted from each deadline, so that the caller gets our answer before its own timeout."""

DEFAULT_SECONDS = 60.0
MESSAGE_SECONDS = 10.0
"""The time that a request's message has to arrive."""

_BAD_INPUT = frozenset({ErrorKind.INVALID, ErrorKind.UNAUTHENTICATED, ErrorKind.DENIED})
"""Errors that are logged as a count: callers can cause any number of them."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller, and its deadline in the loop's time (infinite if it has none)."""

    principal: Principal
    until: float

    @property
    def seconds(self) -> float:
        """Return the seconds left."""
        return self.until - asyncio.get_running_loop().time()


T = TypeVar("T")
Serve = Callable[["_Call"], Awaitable[T]]


class Identify(Protocol):
    """Identifies the caller that presents a token."""

    def __call__(self, token: str, /) -> Principal | None:
        """Return the principal of ``token``, or None if it is unknown."""
        ...


class CallLog(Protocol):
    """Logs errors and refused calls."""

    def report(self, method: str, error: BaseException) -> str:
        """Log an unexpected exception; return its reference in the log."""
        ...

    def refused(self, reason: str) -> None:
        """Count a call that was refused."""
        ...


class Guard:
    """Wraps the implementations of services into gRPC handlers."""

    def __init__(
        self,
        identify: Identify,
        log: CallLog,
        rules: Mapping[str, Capability],
        *,
        public: Container[str] = (),
        lasting: Container[str] = (),
        max_calls: int = 2_000,
    ) -> None:
        """Admit callers that ``identify`` knows and ``rules`` allow, and everybody to ``public`` methods.

        ``lasting`` streams are unbounded; known callers have at most ``max_calls`` calls at the same time.
        """
        self._identify = identify
        self._log = log
        self._rules = rules
        self._public = public
        self._lasting = lasting
        self._max_calls = max_calls
        self._anonymous = AnonymousCalls()
        self._watches: dict[asyncio.Timeout, None] = {}
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    def handlers(
        self, descriptor: ServiceDescriptor, implementation: object, name: str = ""
    ) -> grpc.GenericRpcHandler:
        """Return the handlers of one service; ``name`` replaces its own name.

        Raises:
            LookupError: A method has no rule.
        """
        methods = {method.name: self._handler(method, implementation) for method in descriptor.methods}
        return grpc.method_handlers_generic_handler(name or descriptor.full_name, methods)

    def unknown_methods(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods that no other handler serves; add it last."""
        entry = _Method("the method", None, Message, None, streams=False, lasting=False)

        async def refuse(_: object, context: Context) -> Message:
            async def serve(_: _Call) -> Message:
                raise Unimplemented("the server has no such method")

            return await self._run(entry, context, serve)

        return _AnyMethod(grpc.stream_unary_rpc_method_handler(refuse, None, None))

    async def drain(self, seconds: float) -> int:
        """Refuse new calls, end unbounded streams, wait for other calls; return how many are left."""
        self._draining = True
        for watch in self._watches:
            if not watch.expired():  # a call past its deadline is being closed already
                watch.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self._calls

    def _handler(self, method: MethodDescriptor, implementation: object) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"{method.containing_service.name}.{method.name}"
        if name not in self._rules and name not in self._public:
            raise LookupError(f"{name} has no rule in services/permissions.py")
        entry = _Method(
            name,
            self._rules.get(name),
            GetMessageClass(method.input_type),
            getattr(implementation, method.name, None),
            method.server_streaming,
            name in self._lasting,
        )
        serialize = GetMessageClass(method.output_type).SerializeToString

        async def unary(_: object, context: Context) -> Message:
            return await self._run(entry, context, self._answer)

        async def stream(_: object, context: Context) -> None:
            await self._run(entry, context, self._converse if method.client_streaming else self._answers)

        # A unary handler would start only after the whole message is in memory. These start with the
        # metadata, so the message of a caller without permission is never read.
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, serialize)
        return grpc.stream_unary_rpc_method_handler(unary, None, serialize)

    async def _run(self, entry: _Method, context: Context, serve: Serve[T]) -> T:
        """Serve one call, or abort it with the status of its error."""
        principal: Principal | None = None
        try:
            # Life of a request, 1: only the metadata is read.
            principal = self._admitted(entry, context)
            call = _Call(entry, context, principal, _until(entry, context))
            if principal is ANONYMOUS:
                return await self._serve_anybody(call, serve)
            if self._draining:
                raise Draining("the server is stopping")
            with self._counted(entry):
                return await serve(call)
        except LessorError as error:
            answered = self._referred(entry, error)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None  # gRPC can't write to a caller that has disconnected
        except Exception as error:  # noqa: BLE001 - nothing unmapped may leave
            answered = InternalError(self._log.report(entry.name, error))
        _release_frames(answered)
        if answered.kind in _BAD_INPUT:
            self._log.refused(answered.reason)
        if principal is None:
            await self._anonymous.wait_turn(context.peer())
        refusal = status.error_status(answered, sees_root=principal is not None and principal.sees_root)
        try:
            await context.abort(refusal.code, refusal.message, ((status.DETAILS_KEY, refusal.details),))
        except grpc.aio.InternalError:
            # A message is half-written to a caller that does not read: gRPC accepts no status. The call
            # ends with its connection.
            raise asyncio.CancelledError from None
        raise AssertionError("abort raises")

    def _referred(self, entry: _Method, error: LessorError) -> LessorError:
        """Return the error, with a reference to the log if the caller can do nothing about it."""
        if error.kind is ErrorKind.INTERNAL and not isinstance(error, InternalError):
            error.message = f"{error.message}, reference {self._log.report(entry.name, error)}"
        return error

    async def _serve_anybody(self, call: _Call, serve: Serve[T]) -> T:
        """Serve a call that needs no credential, after its connection's turn has come."""
        peer = call.context.peer()
        await self._anonymous.wait_turn(peer)
        with self._anonymous.stream(peer) if call.entry.streams else nullcontext():
            return await serve(call)

    def _admitted(self, entry: _Method, context: Context) -> Principal:
        """Return the caller of a call by its metadata, or raise the error that refuses the call."""
        if entry.capability is None:
            return ANONYMOUS
        principal = self._identify(_token(context.invocation_metadata() or ()))
        if principal is None:
            raise Unauthenticated("the token is missing or unknown")
        if not principal.may(entry.capability):
            raise PermissionDenied(f"{entry.name} needs the permission to {entry.capability.value}")
        return principal

    async def _answer(self, call: _Call) -> Message:
        """Serve a call with one response message."""
        async with self._deadline(call):
            answer: Message = await call.serve(await self._request(call))
            return answer

    async def _answers(self, call: _Call) -> None:
        """Serve a call with a stream of response messages."""
        request = await self._request(call)
        async with aclosing(call.serve(request)) as answers:
            if call.entry.lasting:
                async with self._deadline(call):
                    await anext(answers)  # not a message: the subscription has begun
                # The initial metadata report that the subscription has begun, before the first message.
                # Outside of the deadline: gRPC can send no status after a write that was cancelled.
                await call.context.send_initial_metadata(())
            async with self._deadline(call):
                async for message in answers:
                    await call.context.write(message)

    async def _converse(self, call: _Call) -> None:
        """Answer each message of a stream with one message, until the caller half-closes."""
        while (data := await self._read(call)) is not grpc.aio.EOF:
            await self._anonymous.wait_turn(call.context.peer())
            # Without a deadline: gRPC can send no status after a half-written message.
            await call.context.write(await call.serve(parsing.parse(call.entry.request, data)))

    async def _request(self, call: _Call) -> Message:
        """Read and parse the message of a request."""
        # Life of a request, 2: the message, within limits.
        data = await self._read(call)
        if data is grpc.aio.EOF:
            raise Invalid((Violation("", "no message was sent", "send one"),))
        request = parsing.parse(call.entry.request, data)
        if call.entry.serve is None:
            raise Unimplemented(f"{call.entry.name} is not supported by this version")
        return request

    async def _read(self, call: _Call) -> Any:  # noqa: ANN401 - bytes, or the library's end of file
        """Wait 10 s for the caller's message; the number of anonymous callers that wait is bounded."""
        timeout = asyncio.timeout_at(min(call.until, asyncio.get_running_loop().time() + MESSAGE_SECONDS))
        try:
            with self._anonymous.place(timeout) if call.principal is ANONYMOUS else nullcontext():
                async with timeout:
                    return await call.context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"the message of {call.entry.name} did not arrive in time") from None

    @asynccontextmanager
    async def _deadline(self, call: _Call) -> AsyncIterator[None]:
        """End the block at the caller's deadline, and an unbounded stream also when the server drains."""
        ends_at_drain = call.entry.lasting and call.principal is not ANONYMOUS
        if ends_at_drain and self._draining:
            raise Draining("the server is stopping")
        timeout = asyncio.timeout_at(None if call.until == math.inf else call.until)
        if ends_at_drain:
            self._watches[timeout] = None
        try:
            async with timeout:
                yield
        except TimeoutError:
            if ends_at_drain and self._draining:
                raise Draining("the server is stopping") from None
            raise DeadlineExceeded(f"{call.entry.name} did not finish in time") from None
        finally:
            self._watches.pop(timeout, None)

    @contextmanager
    def _counted(self, entry: _Method) -> Iterator[None]:
        """Count a known caller's call while it runs, for the drain and for the limit."""
        if self._calls - len(self._watches) >= self._max_calls and not entry.lasting:
            raise TooManyCalls(f"{self._max_calls} calls are in progress", retry_in=1.0)
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()


def _release_frames(error: BaseException) -> None:
    """Release what the frames of an error's traceback hold, such as the message of the call.

    The frame of ``_run`` and the traceback refer to each other, so both would stay until a collection.
    """
    chain: list[BaseException] = [error]
    while (earlier := chain[-1].__context__) is not None:
        chain.append(earlier)
    for one in chain:
        one.__traceback__ = one.__context__ = one.__cause__ = None


@dataclass(frozen=True, slots=True)
class _AnyMethod(grpc.GenericRpcHandler):
    """Serves every method by one handler."""

    handler: grpc.RpcMethodHandler[Any, Any]

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the one handler."""
        return self.handler


@dataclass(frozen=True, slots=True)
class _Method:
    """One method: its name, the capability that it needs, its request's class, and its implementation."""

    name: str
    capability: Capability | None
    """None: everybody may call it."""
    request: type[Message]
    serve: Any
    """A coroutine function, or for a stream an async generator function; None if unimplemented."""
    streams: bool
    """Whether it answers with a stream of messages."""
    lasting: bool
    """An unbounded stream; it yields None first, when the subscription has begun."""


@dataclass(frozen=True, slots=True)
class _Call:
    """An admitted call."""

    entry: _Method
    context: Context
    principal: Principal
    until: float

    def serve(self, request: Message) -> Any:  # noqa: ANN401 - a coroutine, or a generator for streams
        """Call the implementation."""
        return self.entry.serve(request, Caller(self.principal, self.until))


def _until(entry: _Method, context: Context) -> float:
    """Return the caller's deadline, in the loop's time."""
    left = cast("float | None", context.time_remaining())  # None if no deadline was sent
    default = math.inf if entry.lasting else DEFAULT_SECONDS
    seconds = default if left is None else left - DEADLINE_MARGIN_SECONDS
    return asyncio.get_running_loop().time() + seconds


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the bearer token (RFC 6750) of the metadata; an empty text unless there is exactly one value.

    If there are several, a proxy may have checked another one.
    """
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        return ""
    scheme, _, token = values[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
