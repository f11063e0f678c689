"""Calls the methods of our services for requests over HTTP, through the guard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol

from aiohttp.web import BaseRequest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from lessor_server.domain.access.caller import Principal
from lessor_server.http_edge.exchange import CALL_SECONDS, HttpExchange
from lessor_server.services.call import UNKNOWN_METHOD, Caller, Method
from lessor_server.services.guard import CallRefusal, Guard

_WHO_AM_I: Final = "SystemService.WhoAmI"
UNKNOWN: Final = "unknown"
"""The name of the method that does not exist: the guard delays and counts its callers."""


class Service(Protocol):
    """One of our services."""

    @property
    def DESCRIPTOR(self) -> ServiceDescriptor:  # noqa: N802 - protobuf's name
        """Return the description of its methods."""
        ...


class Calls:
    """The methods of our services, by their names."""

    def __init__(self, guard: Guard, services: Iterable[Service]) -> None:
        """Serve the methods of ``services`` by ``guard``.

        Raises:
            LookupError: A method has no permission.
        """
        self._guard = guard
        self._methods: dict[str, Method] = {UNKNOWN: UNKNOWN_METHOD}
        for service in services:
            self._methods |= {one.name: one for _, one in guard.methods(service.DESCRIPTOR, service)}

    async def serve(self, name: str, exchange: HttpExchange) -> Message | CallRefusal:
        """Serve one call of a method, such as ``RoleService.GetRole``; a stream returns its last message."""
        method = self._methods[name]
        outcome = await self._guard.serve(method, exchange)
        if outcome is not None:
            return outcome
        return exchange.last if exchange.last is not None else method.request()

    async def identify(
        self, request: BaseRequest, seconds: float = CALL_SECONDS
    ) -> tuple[HttpExchange, Principal | CallRefusal]:
        """Return the caller of a request, whose call is that of ``WhoAmI``, or the error that refuses it."""
        method = self._methods[_WHO_AM_I]
        found: list[Principal] = []

        async def serve(message: Message, caller: Caller) -> Message:
            found.append(caller.principal)
            answer: Message = await method.serve(message, caller)
            return answer

        async def ask() -> Message:
            return method.request()

        exchange = HttpExchange(request, ask, seconds=seconds)
        outcome = await self._guard.serve(replace(method, serve=serve), exchange)
        return exchange, outcome if isinstance(outcome, CallRefusal) else found[0]
