"""Checks bodies over HTTP that arrive in many pieces, or not to their end."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.web import BaseRequest, StreamResponse

from lessor_server.domain.errors.base import Invalid
from lessor_server.http_edge.answers import json_response
from lessor_server.http_edge.body import read_json_body
from lessor_server.http_edge.connections import CallerConnection
from tests.unit.http_edge.test_connections import ask, post, running


async def test_a_body_in_very_many_chunks_ends_its_connection() -> None:
    """A parser that copies the rest for each chunk would block the event loop for a second and more."""
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.gate.clear()
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        await edge.echo.called(1)
        with pytest.raises(ConnectionError):  # noqa: PT012 - which write fails is open
            for _ in range(100):
                writer.write(b"1\r\n \r\n" * 1_000)
                await writer.drain()
            await reader.read()
            raise ConnectionError
        assert not edge.reported


async def test_a_body_that_is_read_after_its_connection_has_ended_is_refused_and_not_reported() -> None:
    async with running() as edge, edge.connect() as (_, writer):
        refused = asyncio.get_running_loop().create_future()

        async def answer(request: BaseRequest) -> StreamResponse:
            assert isinstance(request.protocol, CallerConnection)
            request.protocol.abort()
            with pytest.raises(Invalid) as caught:
                await read_json_body(request)
            refused.set_result(caught.value.violations[0].problem)
            return json_response(200, {})

        edge.echo.answer = answer  # type: ignore[method-assign]
        writer.write(post(b"{}")[:-1])
        assert await refused == "has ended with its connection"
        assert not edge.reported


async def test_a_body_in_many_chunks_is_read() -> None:
    chunks = b"400\r\n" + b" " * 1_024 + b"\r\n"
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert await ask(head + chunks * 1_000 + b'7\r\n{"a":1}\r\n0\r\n\r\n') == (200, b'{"a":1}')


async def test_a_body_of_many_lines_is_read() -> None:
    assert await ask(post(b"{" + b"\r\n" * 100_000 + b"}")) == (200, b"{}")
