"""Sessions of the console: who signs in, and by which token its calls are then made."""

from __future__ import annotations

from typing import Protocol

from aiohttp.web import BaseRequest

from lessor.v1 import system_pb2
from lessor_server.http_edge.calls import Calls
from lessor_server.http_edge.console.problems import CallFailed
from lessor_server.http_edge.exchange import HttpExchange, token_credential
from lessor_server.services.guard import CallRefusal


class Sessions(Protocol):
    """Begins and ends sessions."""

    async def begin(self, request: BaseRequest, token: str) -> str:
        """Return the token of a new session for the holder of ``token``: a token, or a JWT.

        Raises:
            CallFailed: The token is not accepted.
        """
        ...

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        """Return the token of a new session for the maker of a link, which works once.

        Raises:
            CallFailed: The link was used before, has expired, or was never made.
        """
        ...

    async def end(self, request: BaseRequest, session: str) -> None:
        """End a session; one that has ended already is no error."""
        ...


class TokenSessions:
    """Sessions whose token is the one that was presented: until login tokens are there."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def begin(self, request: BaseRequest, token: str) -> str:
        async def ask() -> system_pb2.WhoAmIRequest:
            return system_pb2.WhoAmIRequest()

        exchange = HttpExchange(request, ask, credential=token_credential(request, token))
        outcome = await self._calls.serve("SystemService.WhoAmI", exchange)
        if isinstance(outcome, CallRefusal):
            raise CallFailed(outcome)
        return token

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        return await self.begin(request, code)

    async def end(self, request: BaseRequest, session: str) -> None:
        return
