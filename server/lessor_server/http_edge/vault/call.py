"""One request to Vault's API: its names, its parameters, and the calls that serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aiohttp.web import BaseRequest
from google.protobuf.message import Message

from lessor_server.domain.access.caller import Principal
from lessor_server.http_edge.body import read_json_body
from lessor_server.http_edge.calls import CallRefused, Calls
from lessor_server.http_edge.exchange import CALL_SECONDS, HttpExchange, credential_of, peer_from
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.routes import RouteTable, VaultOperation
from lessor_server.services.logins import Logins, NewToken

M = TypeVar("M", bound=Message)


class Page(Protocol):
    """One page of a list; ``next_page_token`` is empty on the last one."""

    next_page_token: str


P = TypeVar("P", bound=Page)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What anyone may know of this server."""

    version: str
    cluster_id: str
    storage: str
    wall_us: Callable[[], int]


class VaultCall:
    """One request."""

    def __init__(
        self,
        calls: Calls,
        facts: ServerFacts,
        request: BaseRequest,
        operation: VaultOperation,
        names: Mapping[str, str],
        table: RouteTable,
    ) -> None:
        """Serve ``request`` by ``operation`` of ``table``; ``names`` are those of its path."""
        self._calls = calls
        self._operation = operation
        self._parameters: Parameters | None = None
        self._until = asyncio.get_running_loop().time() + CALL_SECONDS
        self.request = request
        self.facts = facts
        self.names = names
        self.table = table
        self.peer = peer_from(request)
        self.request_id = ""
        """The id of the audit records of the first call, empty without an audit."""

    @property
    def seconds(self) -> float:
        """Return the seconds that are left for this request."""
        return max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def call(
        self,
        rpc: str,
        build: Callable[[Parameters], Message],
        answer: type[M],
        at_most: float = CALL_SECONDS,
    ) -> M:
        """Return the answer of a method, called with the caller's rights, within ``at_most`` seconds.

        ``build`` makes its message of the parameters, which are read when the caller is known; it may raise
        ``Invalid``.

        Raises:
            CallRefused: The call ended with an error.
        """
        assert rpc in self._operation.rpcs, rpc

        async def ask() -> Message:
            return build(await self._read())

        exchange = HttpExchange(self.request, ask, seconds=min(self.seconds, at_most))
        try:
            found = await self._calls.serve(rpc, exchange)
        finally:
            self.request_id = self.request_id or exchange.request_id
        assert isinstance(found, answer)
        return found

    async def ask(self, rpc: str, message: Message, answer: type[M]) -> M:
        """Return the answer of a method to a message that needs no parameters; raises ``CallRefused``."""
        return await self.call(rpc, lambda _: message, answer)

    async def identify(self) -> Principal:
        """Return the caller, whose call is that of ``WhoAmI``; raises ``CallRefused``."""
        return await self._identify(None)

    async def identify_and_read(self) -> tuple[Principal, Parameters]:
        """Return the caller, as ``identify``, and its parameters; raises ``CallRefused`` and ``Invalid``."""
        principal = await self._identify(self._read)
        return principal, await self._read()

    async def _identify(self, read: Callable[[], Awaitable[object]] | None) -> Principal:
        exchange, principal = await self._calls.identify(self.request, self.seconds, read)
        self.request_id = self.request_id or exchange.request_id
        return principal

    def admit(self) -> AbstractAsyncContextManager[Principal]:
        """Identify the caller of a call that is not a method; raises ``LessorError``."""
        return self._calls.admit(self.request)

    async def read_admitted(self) -> Parameters:
        """Return the parameters of a caller that was admitted; raises ``Invalid``."""
        return await self._read()

    async def log_in(self, name: str) -> NewToken:
        """Return the token of a login; raises ``CallRefused``."""
        return await self._calls.log_in(self.request, name)

    @property
    def logins(self) -> Logins:
        """Return what serves tokens."""
        return self._calls.logins

    @property
    def token(self) -> str:
        """Return the caller's token, empty if it has presented a certificate."""
        sent = credential_of(self.request).authorization
        return str(sent[0]).partition(" ")[2] if sent else ""

    @property
    def warnings(self) -> list[str]:
        """Return the warnings of the parameters that were given in vain."""
        return [] if self._parameters is None else self._parameters.warnings

    async def _read(self) -> Parameters:
        """Return the parameters of the query and the body, which is read once."""
        if self._parameters is None:
            self._parameters = Parameters(self.request.query, await read_json_body(self.request))
        return self._parameters


async def each_page(ask: Callable[[str], Awaitable[P]]) -> AsyncIterator[P]:
    """Yield the pages of a list; ``ask`` returns the page of a token, for an empty one the first."""
    token = ""
    while True:
        page = await ask(token)
        yield page
        if not (token := page.next_page_token):
            return


@contextmanager
def missing_is_done() -> Iterator[None]:
    """Ignore the error that what the block ends does not exist."""
    try:
        yield
    except CallRefused as refused:
        if not refused.is_missing:
            raise
