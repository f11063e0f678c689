"""One request to Vault's API: its names, its parameters, and the calls that serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from aiohttp.web import BaseRequest
from google.protobuf.message import Message

from lessor_server.http_edge.body import read_object
from lessor_server.http_edge.calls import Calls
from lessor_server.http_edge.exchange import HttpExchange
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.routes import Operation
from lessor_server.services.guard import CallRefusal

M = TypeVar("M", bound=Message)


class Refused(Exception):
    """A call ended with an error, which is the answer to the request."""

    def __init__(self, refusal: CallRefusal) -> None:
        """Keep the error."""
        super().__init__(refusal.error.reason)
        self.refusal = refusal


class VaultCall:
    """One request."""

    def __init__(
        self, calls: Calls, request: BaseRequest, operation: Operation, names: Mapping[str, str]
    ) -> None:
        """Serve ``request`` by ``operation``; ``names`` are those of its path."""
        self._calls = calls
        self._request = request
        self._operation = operation
        self._parameters: Parameters | None = None
        self.names = names
        self.request_id = ""

    async def call(self, rpc: str, build: Callable[[Parameters], Message], answer: type[M]) -> M:
        """Return the answer of a method, called with the caller's rights.

        ``build`` makes its message of the parameters, which are read when the caller is known; it may raise
        ``Invalid``.

        Raises:
            Refused: The call ended with an error.
        """
        assert rpc in self._operation.rpcs

        async def ask() -> Message:
            return build(await self.read_parameters())

        exchange = HttpExchange(self._request, ask)
        outcome = await self._calls.serve(rpc, exchange)
        self.request_id = self.request_id or exchange.request_id
        if isinstance(outcome, CallRefusal):
            raise Refused(outcome)
        assert isinstance(outcome, answer)
        return outcome

    async def read_parameters(self) -> Parameters:
        """Return the parameters of the query and the body, which is read once."""
        if self._parameters is None:
            body = await read_object(self._request)
            self._parameters = Parameters(self._request.query, body)
        return self._parameters
