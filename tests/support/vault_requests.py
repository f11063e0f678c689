"""Requests to Vault's API without a socket, and calls that answer as a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import HttpVersion11, streams
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web import BaseRequest, Response, StreamResponse
from google.protobuf.message import Message
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lessor_server.domain.access.caller import ROOT, Principal
from lessor_server.domain.errors.base import LessorError
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.exchange import HttpExchange
from lessor_server.http_edge.vault.call import ServerFacts
from lessor_server.http_edge.vault.face import VaultFace
from lessor_server.services.logins import NewToken

NOW_US = 1_795_507_851_000_000
FACTS = ServerFacts("1.21.0+lessor.0.1.0", "00000000-0000-8000-8000-000000000000", "sqlite", lambda: NOW_US)


@dataclass
class FakeCalls:
    """Instead of the guard: reads the message of each call, and answers by ``answers``, or with ``error``."""

    answers: dict[str, Message | Callable[[Message], Message]] = field(default_factory=dict)
    error: LessorError | None = None
    principal: Principal = ROOT
    asked: list[tuple[str, Message]] = field(default_factory=list)

    async def serve(self, name: str, exchange: HttpExchange) -> Message:
        if name == "unknown":
            raise CallRefused(LessorError("unknown"))
        if self.error is not None:
            raise CallRefused(self.error, rpc=name)
        try:
            message = await exchange._ask()
            self.asked.append((name, message))
            answer = self.answers[name]
            return answer if isinstance(answer, Message) else answer(message)
        except LessorError as error:
            raise CallRefused(error, rpc=name) from None

    async def identify(
        self,
        _request: BaseRequest,
        _seconds: float = 25.0,
        read: Callable[[], Awaitable[object]] | None = None,
    ) -> tuple[HttpExchange, Principal]:
        exchange = HttpExchange(_request, self._nothing)
        if self.error is not None:
            raise CallRefused(self.error)
        if read is not None:
            await read()
        return exchange, self.principal

    @asynccontextmanager
    async def admit(self, _: BaseRequest) -> AsyncIterator[Principal]:
        if self.error is not None:
            raise self.error
        yield self.principal

    async def log_in(self, _request: BaseRequest, _name: str) -> NewToken:
        assert self.error is not None
        raise CallRefused(self.error)

    async def _nothing(self) -> Message:
        raise AssertionError


@dataclass
class Answer:
    """The answer to a request."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Api:
    """Vault's API over fake calls."""

    def __init__(self, calls: FakeCalls) -> None:
        self.calls = calls
        self.reported: list[BaseException] = []
        self.withdrawn: list[object] = []
        self._face = VaultFace(calls, FACTS, self._report, self._withdraw, lambda _: 7)  # type: ignore[arg-type]

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the answer to a request below ``/v1/``; ``body`` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        request = request_of(method, f"/v1/{path}", data, headers or {})
        answer = await self._face.answer(request)
        return answer_of(answer)

    def _withdraw(self, issued: object, _: object) -> None:
        self.withdrawn.append(issued)

    def _report(self, _: str, error: BaseException) -> str:
        self.reported.append(error)
        return "reference"


def request_of(method: str, path: str, data: bytes, headers: Mapping[str, str]) -> BaseRequest:
    """Return a request with a body."""
    loop, protocol = asyncio.get_running_loop(), _Protocol()
    payload = streams.StreamReader(protocol, 1 << 16, loop=loop)  # type: ignore[arg-type]
    payload.feed_data(data)
    payload.feed_eof()
    sent = CIMultiDict(headers)
    sent.add("Host", "localhost")
    url = URL(path, encoded=True)
    head = RawRequestMessage(
        method, path, HttpVersion11, CIMultiDictProxy(sent), (), False, None, False, False, url
    )  # type: ignore[call-arg]
    return BaseRequest(head, payload, protocol, None, None, loop)  # type: ignore[arg-type]


def answer_of(answer: StreamResponse) -> Answer:
    """Return what a client reads of a response."""
    assert isinstance(answer, Response)
    body = answer.body
    assert body is None or isinstance(body, bytes)
    return Answer(answer.status, json.loads(body) if body else None, answer.headers)


class _Protocol:
    """What a stream of a body needs of its connection."""

    _reading_paused = False
    transport = ssl_context = peername = sockname = None

    def pause_reading(self) -> None: ...

    def resume_reading(self, **_: object) -> None: ...
