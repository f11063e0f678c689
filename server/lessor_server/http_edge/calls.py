"""Calls the methods of our services for requests over HTTP, through the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Protocol

from aiohttp.web import BaseRequest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue

from lessor_server.domain.access.caller import Principal
from lessor_server.domain.errors.base import ErrorKind, LessorError
from lessor_server.http_edge.body import parse_object, read_bytes
from lessor_server.http_edge.exchange import CALL_SECONDS, HttpExchange, credential_of, peer_from
from lessor_server.services.call import UNKNOWN_METHOD, Caller, Method
from lessor_server.services.guard import CallRefusal, Guard
from lessor_server.services.logins import Logins, NewToken

_WHO_AM_I: Final = "SystemService.WhoAmI"
MAX_LOGIN: Final = 64 << 10
"""The maximum bytes of a login: a JWT has at most 16 KiB."""
UNKNOWN: Final = "unknown"
"""The name of the method that does not exist: the guard delays and counts its callers."""


class Service(Protocol):
    """One of our services."""

    @property
    def DESCRIPTOR(self) -> ServiceDescriptor:  # noqa: N802 - protobuf's name
        """Return the description of its methods."""
        ...


class CallRefused(Exception):
    """A call of ``rpc`` ended with an error.

    ``sees_root`` says whether its caller may see the private parts of the error.
    """

    def __init__(self, error: LessorError, *, sees_root: bool = False, rpc: str = "") -> None:
        """Keep the error."""
        super().__init__(error.reason)
        self.error = error
        self.sees_root = sees_root
        self.rpc = rpc

    @property
    def kind(self) -> ErrorKind:
        """Return what the caller can do about it."""
        return self.error.kind

    @property
    def is_missing(self) -> bool:
        """Return whether what the call names does not exist."""
        return self.kind is ErrorKind.NOT_FOUND


class Calls:
    """The methods of our services, by their names."""

    def __init__(self, guard: Guard, services: Iterable[Service], logins: Logins) -> None:
        """Serve the methods of ``services`` by ``guard``, and logins by ``logins``.

        Raises:
            LookupError: A method has no permission.
        """
        self._guard = guard
        self.logins = logins
        self._methods: dict[str, Method] = {UNKNOWN: UNKNOWN_METHOD}
        for service in services:
            self._methods |= {one.name: one for _, one in guard.methods(service.DESCRIPTOR, service)}

    async def serve(self, name: str, exchange: HttpExchange) -> Message:
        """Serve one call of a method, such as ``RoleService.GetRole``; a stream returns its last message.

        Raises:
            CallRefused: The call ended with an error.
        """
        method = self._methods[name]
        exchange.is_public = method.needs is None
        answer = await self._serve(method, exchange)
        if answer is not None:
            return answer
        return exchange.last if exchange.last is not None else method.request()

    def admit(self, request: BaseRequest) -> AbstractAsyncContextManager[Principal]:
        """Identify the caller of what is not a method, and count its call while the block runs.

        Raises:
            Unauthenticated, Draining, RateLimited, TooManyCalls: It is not served.
        """
        return self._guard.admit(credential_of(request))

    async def log_in(self, request: BaseRequest, name: str) -> NewToken:
        """Exchange the credential in a request's body for a login token, as ``Logins.log_in``.

        The guard bounds how many strangers may send a body at the same time, as for its methods.

        Raises:
            CallRefused: The login was refused.
        """
        found: list[NewToken] = []

        async def ask() -> Message:
            return BytesValue(value=await read_bytes(request, MAX_LOGIN))

        async def serve(message: BytesValue, _: Caller) -> Message:
            fields = parse_object(message.value)
            found.append(await self.logins.log_in(peer_from(request), name, fields))
            return message

        exchange = HttpExchange(request, ask)
        exchange.is_public = True
        await self._serve(Method("Token.Login", None, BytesValue, serve), exchange)
        return found[0]

    async def identify(
        self,
        request: BaseRequest,
        seconds: float = CALL_SECONDS,
        read: Callable[[], Awaitable[object]] | None = None,
    ) -> tuple[HttpExchange, Principal]:
        """Return the caller of a request, whose call is that of ``WhoAmI``.

        ``read`` reads the body once the caller is known, within the limits of its calls: bodies take memory.

        Raises:
            CallRefused: The caller is not known, or is not served now.
        """
        method = self._methods[_WHO_AM_I]
        found: list[Principal] = []

        async def serve(message: Message, caller: Caller) -> Message:
            found.append(caller.principal)
            answer: Message = await method.serve(message, caller)
            return answer

        async def ask() -> Message:
            if read is not None:
                await read()
            return method.request()

        exchange = HttpExchange(request, ask, seconds=seconds)
        await self._serve(replace(method, serve=serve), exchange)
        return exchange, found[0]

    async def _serve(self, method: Method, exchange: HttpExchange) -> Message | None:
        outcome = await self._guard.serve(method, exchange)
        if isinstance(outcome, CallRefusal):
            raise CallRefused(outcome.error, sees_root=outcome.sees_root, rpc=method.name)
        return outcome
