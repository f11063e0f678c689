"""Sends calls of AWS's query protocol: written, signed, sent and read without a client of the SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from lessor_server.adapters.aws.http_client import HttpClient
from lessor_server.adapters.aws.http_connection import HttpAnswer
from lessor_server.adapters.aws.query_protocol import QueryOperation, QueryService, query_service
from lessor_server.adapters.aws.sdk_session import find_ca_file
from lessor_server.adapters.aws.signing_key import FORM, Route, SigningKey


@dataclass(slots=True)
class QueryRequest:
    """A written and signed request."""

    service: QueryService
    operation: QueryOperation
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def read(self, answer: HttpAnswer) -> dict[str, Any]:
        """Return the result in the answer; errors are those of ``QueryService.read``."""
        return self.service.read(self.operation, answer)


class QueryClient:
    """Sends over one ``HttpClient``; ``async with`` closes its connections."""

    def __init__(self, user_agent: str, now: Callable[[], float]) -> None:
        """Send ``user_agent``; ``now`` is the wall clock in seconds, by which requests are signed."""
        self._user_agent = user_agent
        self._now = now
        self._http = HttpClient(find_ca_file)
        self._services: dict[str, QueryService] = {}
        self._loading = asyncio.Lock()
        self._second, self._stamp = 0, ""

    async def __aenter__(self) -> Self:
        """Begin without connections."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the idle connections."""
        self._http.close()

    def find(self, service: str) -> QueryService | None:
        """Return a service that is loaded."""
        return self._services.get(service)

    async def load(self, service: str) -> QueryService:
        """Return a service; its model is read once, on a thread."""
        if service not in self._services:
            async with self._loading:
                self._services[service] = await asyncio.to_thread(query_service, service)
        return self._services[service]

    def write(
        self, service: QueryService, action: str, params: dict[str, Any], route: Route, key: SigningKey | None
    ) -> QueryRequest:
        """Return the request of an action, unsigned without a key, or raise ``ParamValidationError``."""
        operation = service.operation(action)
        body = service.write(operation, params)
        headers = key.sign(route, body, self._stamp_now()) if key else {"Content-Type": FORM}
        headers["User-Agent"] = self._user_agent
        return QueryRequest(service, operation, route.url, headers, body)

    def send(self, request: QueryRequest, until: float) -> Awaitable[HttpAnswer]:
        """Send a request once; errors are those of ``HttpClient.send``."""
        return self._http.send("POST", request.url, request.headers, request.body, until)

    def _stamp_now(self) -> str:
        """Return the time as requests are signed with it, written once a second."""
        second = int(self._now())
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        return self._stamp
