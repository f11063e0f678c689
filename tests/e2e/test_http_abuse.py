"""What callers without a token can do to the HTTP listener of a server: it costs a bounded amount.

A legitimate caller, on a connection of its own, calls all the while and loses no call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.test_hostile_callers import MAX_RESIDENT_MIB, resident_mib
from tests.support.clients import meanwhile
from tests.support.server_process import ServerProcess, serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

IDLE, STRANGERS, BODIES = 1_200, 100, 40
HEAD = "POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    settings = {"LESSOR_HTTP_LISTEN": "127.0.0.1:0"}
    async with serving(tmp_path_factory.mktemp("server"), settings) as process:
        yield process


@asynccontextmanager
async def calling_all_the_while(server: ServerProcess) -> AsyncIterator[None]:
    """Call as a legitimate caller while the block runs; each call must succeed, on one connection."""

    async def call(over: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        headers = {"X-Vault-Token": server.token}
        async with aiohttp.ClientSession(server.http_url, connector=connector, headers=headers) as session:
            while not over.is_set():
                async with session.get("/v1/sys/mounts") as answer:
                    assert answer.status == 200
                await asyncio.sleep(0)

    async with meanwhile(call):
        yield


async def connect(server: ServerProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = urlsplit(server.http_url)
    return await asyncio.open_connection(host.hostname, host.port)


async def send(server: ServerProcess, data: bytes) -> bytes:
    """Send bytes on a connection of their own, and return the answer until the server closes."""
    reader, writer = await connect(server)
    try:
        writer.write(data)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_more_idle_connections_than_there_is_room_for_keep_nobody_out(server: ServerProcess) -> None:
    async with calling_all_the_while(server):
        opened = [await connect(server) for _ in range(IDLE)]
        async with aiohttp.ClientSession(server.http_url) as session, session.get("/v1/sys/health") as answer:
            assert answer.status == 200
    for _, writer in opened:
        writer.transport.abort()
    assert resident_mib(server.pid) < MAX_RESIDENT_MIB


async def test_strangers_who_ask_for_everything_wait_and_a_caller_does_not(server: ServerProcess) -> None:
    async with calling_all_the_while(server), asyncio.TaskGroup() as group:
        for number in range(STRANGERS):
            path = ("aws/creds/app", "no/such/path", "sys/seal-status")[number % 3]
            data = f"GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            group.create_task(send(server, data))


async def test_large_bodies_of_strangers_are_not_read(server: ServerProcess) -> None:
    """Neither where a token is missing, nor at a login, whose size is limited."""
    sizes = "Content-Length: 100000000\r\nConnection: close\r\n"
    async with calling_all_the_while(server), asyncio.TaskGroup() as group:
        answers = [
            group.create_task(send(server, HEAD.format(path=path, more=sizes).encode()))
            for path in ("aws/roles/app", "auth/approle/login")
            for _ in range(BODIES)
        ]
    statuses = {answer.result().split(b" ")[1] for answer in answers}
    assert statuses == {b"400", b"403"}
    assert resident_mib(server.pid) < MAX_RESIDENT_MIB


async def test_a_login_that_never_ends_leaves_room_for_others(server: ServerProcess) -> None:
    slow = HEAD.format(path="auth/approle/login", more="Content-Length: 50\r\n").encode()
    opened = [await connect(server) for _ in range(BODIES)]
    for _, writer in opened:
        writer.write(slow + b"{")
    login = json.dumps({"role_id": "nobody", "secret_id": "nothing"})
    path = "/v1/auth/approle/login"
    async with aiohttp.ClientSession(server.http_url) as session, session.post(path, data=login) as answer:
        assert answer.status == 400
    for _, writer in opened:
        writer.transport.abort()
