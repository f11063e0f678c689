"""The way of every call, on any transport: identify, authorise, limit, parse, serve, map the errors.

A transport gives each call as an ``Exchange``. The guard identifies the caller by what comes with the call,
and asks for the message only from a caller that it knows. The server does not start if a method has no
permission. A method without an implementation answers UNIMPLEMENTED. An unexpected exception becomes INTERNAL
with a reference; only the log has its text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, TypeVar

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lessor_server.domain.access.caller import ANONYMOUS, Credential, Principal
from lessor_server.domain.errors.base import (
    DeadlineExceeded,
    Draining,
    ErrorKind,
    InternalError,
    Invalid,
    LessorError,
    Unauthenticated,
    Unimplemented,
    Violation,
    shown,
)
from lessor_server.services import parsing, permissions
from lessor_server.services.anonymous import AnonymousCalls
from lessor_server.services.audit import CANCELLED, OK, CallAudit, CallRecords
from lessor_server.services.call import (
    UNKNOWN_METHOD,
    Caller,
    CallObserver,
    Exchange,
    Method,
    OpenStream,
    ServedCall,
)
from lessor_server.services.call_limits import DEFAULT_LIMITS, CallLimiter, IdentityLimits
from lessor_server.services.effects import EFFECTS
from lessor_server.services.permissions import PUBLIC, UNBOUNDED_STREAMS, Need
from lessor_server.services.status import code_of

DEFAULT_SECONDS = 60.0
ADMISSION_SECONDS = 10.0
"""The time in which a caller is identified, and the time that a request's message has to arrive."""
LOGIN_SECONDS: Final = 10.0
"""The interval at which open streams of login tokens are judged."""

_BAD_INPUT = frozenset({ErrorKind.INVALID, ErrorKind.UNAUTHENTICATED, ErrorKind.DENIED})
"""Errors that are logged as a count: callers can cause any number of them."""

T = TypeVar("T")


class Access(Protocol):
    """Identifies callers by the current rules."""

    @property
    def version(self) -> int:
        """Return a number that changes with the rules."""
        ...

    def find(self, credential: Credential) -> Principal | Awaitable[Principal]:
        """Return the caller that presents a credential, or what finds it if that may take a while.

        Both raise ``Unauthenticated`` if the caller is not known.
        """
        ...

    async def identify_again(self, principal: Principal) -> Principal:
        """Return a caller that was identified before by the current rules, or raise ``Unauthenticated``."""
        ...


class CallLog(Protocol):
    """Logs errors and refused calls."""

    def report(self, method: str, error: BaseException) -> str:
        """Log an unexpected exception; return its reference in the log."""
        ...

    def refused(self, reason: str) -> None:
        """Count a call that was refused."""
        ...


@dataclass(frozen=True, slots=True)
class CallRefusal:
    """A call ends with ``error``; ``sees_root`` says whether the caller may see its private parts."""

    error: LessorError
    sees_root: bool


class Guard:
    """Serves the calls of all transports."""

    def __init__(
        self,
        access: Access,
        log: CallLog,
        wall_clock: Callable[[], float],
        limits: IdentityLimits = DEFAULT_LIMITS,
        needs: Mapping[str, tuple[Need, ...]] = permissions.PERMISSIONS,
        audit: CallAudit | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        """Admit callers that ``access`` knows and whose policies grant ``needs``, within ``limits``.

        Calls are recorded by ``audit``. ``wall_clock`` returns the seconds since the epoch, by which
        credentials end. ``observer`` observes each call.
        """
        self._observer = observer
        self._access = access
        self._log = log
        self._needs = needs
        self._limits = CallLimiter(limits)
        self._wall_clock = wall_clock
        self._anonymous = AnonymousCalls()
        self._audit = audit or CallAudit()
        self._streams: dict[OpenStream, None] = {}
        self._draining = False

    def methods(self, descriptor: ServiceDescriptor, implementation: object) -> list[tuple[str, Method]]:
        """Return the methods of one service by their short names.

        Raises:
            LookupError: A method has no permission, or no effect.
        """
        return [(one.name, self._method(one, implementation)) for one in descriptor.methods]

    async def serve(self, method: Method, exchange: Exchange) -> Message | CallRefusal | None:
        """Serve one call; return its answer, None after a stream, or the error that ends it."""
        if self._observer is None:
            return await self._serve(method, exchange)
        code = CANCELLED
        end = self._observer.begin_call(method.service, method.name.rpartition(".")[2], exchange.metadata)
        try:
            outcome = await self._serve(method, exchange)
            code = code_of(outcome.error.kind).name if isinstance(outcome, CallRefusal) else OK
            return outcome
        finally:
            end(code)

    async def _serve(self, method: Method, exchange: Exchange) -> Message | CallRefusal | None:
        records = self._audit.begin(method, exchange.credential.peer.connection)
        exchange.set_request_id(records.request_id)
        try:
            # Life of a request, 1: only what comes with the call is read.
            if method.needs is None:
                return await self._serve_anybody(method, exchange)
            return await self._serve_identified(method, exchange, records)
        except LessorError as error:
            answered = self._with_reference(method, error)
        except asyncio.CancelledError:
            records.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - nothing unmapped may leave
            answered = InternalError(self._log.report(method.name, error))
        _release_frames(answered)
        if answered.kind in _BAD_INPUT:
            self._log.refused(answered.reason)
        await records.refuse(answered)
        if records.principal is None and method.needs is not None:
            # Other methods had their turn before: a wait here would hold what has arrived of the message.
            await self._anonymous.wait_turn(exchange.credential.peer.connection)
        return CallRefusal(answered, sees_root=records.call is not None and records.call.sees_root)

    async def judge_streams(self) -> None:
        """Judge each open stream by the current rules, and end those that they do not allow."""
        await self._judge_streams(list(self._streams))

    async def _judge_streams(self, streams: Sequence[OpenStream]) -> None:
        for stream in streams:
            await asyncio.sleep(0)  # other calls go on meanwhile
            try:
                await self._judge(stream.call)
            except LessorError as error:
                stream.end(error)
            except Exception as error:  # noqa: BLE001 - it ends one stream, not the reload
                stream.end(InternalError(self._log.report(stream.call.method.name, error)))
            else:
                stream.reschedule()

    async def judge_logins(self) -> NoReturn:
        """Judge open streams of login tokens every 10 s, until cancelled: another server may end a token."""
        while True:
            await asyncio.sleep(LOGIN_SECONDS)
            await self._judge_streams([one for one in self._streams if one.call.caller.principal.login])

    @asynccontextmanager
    async def admit(self, credential: Credential) -> AsyncIterator[Principal]:
        """Identify the caller of what is not a method, and count it within its limits while the block runs.

        Raises:
            Unauthenticated: The caller is not known; its connection's turn was waited for.
            Draining, RateLimited, TooManyCalls: It is not served now.
        """
        try:
            principal = await self._identify(credential)
        except LessorError as error:
            self._log.refused(error.reason)
            await self._anonymous.wait_turn(credential.peer.connection)
            raise
        if self._draining:
            raise Draining("the server is stopping")
        self._limits.take_turn(principal)
        with self._limits.counted(principal, lasting=False):
            yield principal

    async def drain(self, seconds: float) -> int:
        """Refuse new calls, end unbounded streams, wait for other calls; return how many are left."""
        self._draining = True
        for stream in list(self._streams):
            if stream.call.method.lasting:
                stream.end(Draining("the server is stopping"))
        try:
            async with asyncio.timeout(seconds):
                await self._limits.wait_until_idle()
        except TimeoutError:
            pass
        return self._limits.in_progress

    async def _serve_identified(
        self, method: Method, exchange: Exchange, records: CallRecords
    ) -> Message | None:
        """Identify the caller, and serve its call within its limits."""
        version = self._access.version
        principal = records.principal = await self._identify(exchange.credential, exchange)
        caller = Caller(
            principal,
            _until(method, exchange),
            peer=exchange.credential.peer,
            require_audit=self._audit.require,
        )
        call = records.call = ServedCall(method, exchange, caller, version)
        if self._draining:
            raise Draining("the server is stopping")
        self._limits.take_turn(principal)
        with self._limits.counted(principal, lasting=method.lasting):
            if not method.answers:
                return await self._answer(call, records)
            await self._serve_stream(call, records)
        return None

    def _method(self, method: MethodDescriptor, implementation: object) -> Method:
        name = f"{method.containing_service.name}.{method.name}"
        if name not in self._needs and name not in PUBLIC:
            raise LookupError(f"{name} has no permission in services/permissions.py")
        if name in self._needs and name not in EFFECTS:
            raise LookupError(f"{name} has no effect in services/effects.py")
        return Method(
            name,
            self._needs.get(name),
            GetMessageClass(method.input_type),
            getattr(implementation, method.name, None),
            answers=method.server_streaming and not method.client_streaming,
            converses=method.client_streaming,
            lasting=name in UNBOUNDED_STREAMS,
            service=method.containing_service.full_name,
            max_bytes=parsing.MAX_REQUEST_BYTES if name in self._needs else parsing.MAX_PUBLIC_BYTES,
        )

    async def _identify(self, credential: Credential, exchange: Exchange | None = None) -> Principal:
        """Return the caller, or raise the error that refuses the call; ``exchange`` may have a deadline."""
        found = self._access.find(credential)
        if isinstance(found, Principal):
            return found
        left = None if exchange is None else exchange.seconds
        try:
            async with asyncio.timeout(ADMISSION_SECONDS if left is None else min(left, ADMISSION_SECONDS)):
                return await found
        except TimeoutError:
            raise DeadlineExceeded("the caller was not identified in time") from None

    def _with_reference(self, method: Method, error: LessorError) -> LessorError:
        """Return the error, with a reference to the log if the caller can do nothing about it."""
        if error.kind is ErrorKind.INTERNAL and not isinstance(error, InternalError):
            error.message = f"{error.message}, reference {self._log.report(method.name, error)}"
        return error

    async def _serve_anybody(self, method: Method, exchange: Exchange) -> Message | None:
        """Serve a call that needs no credential, after its connection's turn has come."""
        connection = exchange.credential.peer.connection
        await self._anonymous.wait_turn(connection)
        if method is UNKNOWN_METHOD:
            raise Unimplemented("the server has no such method")
        call = ServedCall(method, exchange, Caller(ANONYMOUS, _until(method, exchange)))
        if not method.answers and not method.converses:
            return await self._answer(call, None)
        with self._anonymous.stream(connection):
            await (self._converse(call) if method.converses else self._answers(call, None, None))
        return None

    async def _serve_stream(self, call: ServedCall, records: CallRecords) -> None:
        stream = OpenStream(call, self._wall_clock)
        try:
            await self._answers(call, stream, records)
        finally:
            self._streams.pop(stream, None)
        await records.end()

    async def _answer(self, call: ServedCall, records: CallRecords | None) -> Message:
        """Serve a call with one response message; ``records`` is None if it is not recorded."""
        timeout = asyncio.timeout_at(_message_due(call))
        try:
            async with timeout:
                data = await self._read(call, timeout)
                if call.version != self._access.version and records is not None:
                    await self._identify_again(call)  # before its message arrived, the rules have changed
                request = self._parse(call, data)
                if timeout.when() != call.caller.until:
                    timeout.reschedule(call.caller.until)
                if records is not None:
                    await records.begin(call)
                answer: Message = await call.serve(request)
                if records is not None:
                    await records.answer(answer)
                return answer
        except TimeoutError:
            raise _not_in_time(call) from None

    async def _answers(
        self, call: ServedCall, stream: OpenStream | None, records: CallRecords | None
    ) -> None:
        """Serve a call with a stream of response messages; ``records`` is None if it is not recorded."""
        request = self._parse(call, await self._read_in_time(call))
        if stream is not None:
            if call.version != self._access.version:
                await self._judge(call)  # the rules have changed since the caller was identified
            if self._draining and call.method.lasting:
                raise Draining("the server is stopping")
            self._streams[stream] = None
        if records is not None:
            async with self._deadline(call, stream):
                await records.begin(call)
        async with aclosing(call.serve(request)) as answers:
            if call.method.lasting:
                async with self._deadline(call, stream):
                    await anext(answers)  # not a message: the subscription has begun
                # Outside of the deadline: gRPC can send no status after a write that was cancelled.
                await call.exchange.begin()
            async with self._deadline(call, stream):
                async for message in answers:
                    if records is not None:
                        await records.credential(message)
                    await call.exchange.write(message)

    async def _converse(self, call: ServedCall) -> None:
        """Answer each message of a stream with one message, until the caller half-closes."""
        while (data := await self._read_in_time(call)) is not None:
            # Without a deadline: gRPC can send no status after a half-written message.
            await call.exchange.write(await call.serve(call.method.parse(data)))
            del data  # nothing of a message is kept while the next one waits for its turn
            await self._anonymous.wait_turn(call.exchange.credential.peer.connection)

    def _parse(self, call: ServedCall, data: bytes | None) -> Message:
        """Parse the message of a request, and authorise it."""
        # Life of a request, 2: the message, within limits.
        if data is None:
            raise Invalid((Violation("", "no message was sent", "send one"),))
        call.request = call.method.parse(data)
        call.authorise()
        if call.method.serve is None:
            raise Unimplemented(f"{call.method.name} is not supported by this version")
        return call.request

    async def _read(self, call: ServedCall, within: asyncio.Timeout) -> bytes | None:
        """Wait for the caller's message; the number of anonymous callers that wait is bounded."""
        if call.method.needs is not None:
            return await call.exchange.read()
        with self._anonymous.place(within):
            return await call.exchange.read()

    async def _read_in_time(self, call: ServedCall) -> bytes | None:
        """Wait 10 s for the next message of a stream."""
        timeout = asyncio.timeout_at(_message_due(call))
        try:
            async with timeout:
                return await self._read(call, timeout)
        except TimeoutError:
            raise _not_in_time(call) from None

    async def _judge(self, call: ServedCall) -> None:
        """Identify and authorise the caller of a stream by the current rules."""
        await self._identify_again(call)
        call.authorise()

    async def _identify_again(self, call: ServedCall) -> None:
        """Identify a caller by the current rules."""
        call.version = self._access.version
        principal = await self._access.identify_again(call.caller.principal)
        if principal.name != call.caller.principal.name:
            raise Unauthenticated(f"the access file now maps this credential to {shown(principal.name)}")
        call.caller.principal = principal

    @asynccontextmanager
    async def _deadline(self, call: ServedCall, stream: OpenStream | None) -> AsyncIterator[None]:
        """End the block at the caller's deadline; that of a stream also when it may not go on."""
        until = call.caller.until if stream is None else stream.until
        timeout = asyncio.timeout_at(None if until == math.inf else until)
        try:
            with nullcontext() if stream is None else stream.ending(timeout):
                async with timeout:
                    yield
        except TimeoutError:
            error = None if stream is None else stream.error
            raise error or _not_in_time(call) from None


def _release_frames(error: BaseException) -> None:
    """Release what the frames of an error's traceback hold, such as the message of the call.

    The frame of ``serve`` and the traceback refer to each other, so both would stay until a collection.
    """
    chain: list[BaseException] = [error]
    while (earlier := chain[-1].__context__) is not None:
        chain.append(earlier)
    for one in chain:
        one.__traceback__ = one.__context__ = one.__cause__ = None


def _message_due(call: ServedCall) -> float:
    """Return when a message must have arrived, in the loop's time: within 10 s, before the deadline."""
    return min(call.caller.until, asyncio.get_running_loop().time() + ADMISSION_SECONDS)


def _not_in_time(call: ServedCall) -> DeadlineExceeded:
    """Return the error of a call whose message, or whose answer, did not come in time."""
    if call.request is None:
        return DeadlineExceeded(f"the message of {call.method.name} did not arrive in time")
    return DeadlineExceeded(f"{call.method.name} did not finish in time")


def _until(method: Method, exchange: Exchange) -> float:
    """Return the caller's deadline, in the loop's time."""
    left = exchange.seconds
    if left is None:
        left = math.inf if method.lasting else DEFAULT_SECONDS
    return asyncio.get_running_loop().time() + left
