"""Checks which requests over HTTP wait for a turn of their connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.http_edge.test_connections import GET, running

TURN = {
    "wrong host": ("/x HTTP/1.1\r\nHost: evil.example", True),
    "no face": ("/y HTTP/1.1\r\nHost: localhost", False),
    "nobody known": ("/x HTTP/1.1\r\nHost: localhost", False),
}


@pytest.mark.parametrize(("head", "knows"), TURN.values(), ids=TURN)
async def test_a_request_without_a_known_caller_waits_for_its_connections_turn(
    head: str, knows: bool
) -> None:
    """Otherwise a few connections without a token take the time of all others."""
    waiting, turn = asyncio.Event(), asyncio.Event()

    async def wait_turn(_: str) -> None:
        waiting.set()
        await turn.wait()

    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.knows = knows
        if knows:
            writer.write(GET)
            await reader.readuntil(b"HTTP/1.1 200 ")
            edge.echo.methods.clear()
        edge.edge._anonymous.wait_turn = wait_turn  # type: ignore[method-assign]
        writer.write(f"GET {head}\r\n\r\n".encode() + GET)
        await waiting.wait()
        assert not edge.echo.methods
        turn.set()
        await reader.readuntil(b"HTTP/1.1 200 ")


async def test_a_known_caller_waits_for_no_turn() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.knows = True
        writer.write(GET)
        await reader.readuntil(b"HTTP/1.1 200 ")

        async def wait_turn(_: str) -> None:
            raise AssertionError("it is known")

        edge.edge._anonymous.wait_turn = wait_turn  # type: ignore[method-assign]
        writer.write(GET)
        await reader.readuntil(b"HTTP/1.1 200 ")
        assert not edge.reported
