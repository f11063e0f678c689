"""Servers and proxies that are hostile, or set up wrongly: nothing is mixed up, shown, or unbounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohappyeyeballs
import pytest
from tests.unit.adapters.test_http_outcomes import OK, connected, outcome, post, say, serving

from lessor_server.adapters.aws import http_client
from lessor_server.adapters.aws.http_client import HttpClient
from lessor_server.adapters.aws.http_connection import MAX_HEAD_BYTES

HTTPS, HTTP = "https://iam.aws.test", "http://iam.aws.test"


# --- connections ------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[socket.socket, str]]:
    """Return a socket that listens on loopback, which the test serves step by step, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


async def exchange(client: HttpClient, listener: socket.socket, url: str) -> socket.socket:
    """Answer one request on a connection that is then kept; return the server's side of it."""
    loop = asyncio.get_running_loop()

    async def serve() -> socket.socket:
        peer, _ = await loop.sock_accept(listener)
        await loop.sock_recv(peer, 1 << 16)
        await loop.sock_sendall(peer, OK)
        return peer

    async with asyncio.TaskGroup() as group:
        served, call = group.create_task(serve()), group.create_task(post(client, url))
        assert (await call).body == b"ok"
        served.cancel()  # unless it is done: the call may have had its answer from elsewhere
    return served.result()


async def test_an_answer_that_was_there_before_its_request_is_not_taken() -> None:
    """The loop has not read it yet when the connection is used again."""
    async with listening() as (listener, url), connected() as client:
        with await exchange(client, listener, url) as peer:
            peer.send(OK.replace(b"ok", b"no"))
            (await exchange(client, listener, url)).close()  # over another connection


async def test_a_connection_that_the_server_has_closed_is_not_used() -> None:
    """A call over it would end without a clear answer, although nothing was received."""
    async with listening() as (listener, url), connected() as client:
        (await exchange(client, listener, url)).close()
        (await exchange(client, listener, url)).close()


async def test_after_an_answer_to_half_a_request_another_connection_is_used() -> None:
    """The other half would come before the next request."""
    async with listening() as (listener, url), connected(connect_seconds=5, read_seconds=5) as client:
        loop = asyncio.get_running_loop()

        async def serve() -> socket.socket:
            peer, _ = await loop.sock_accept(listener)
            await loop.sock_recv(peer, 100)
            await loop.sock_sendall(peer, OK)
            return peer

        async with asyncio.TaskGroup() as group:
            served = group.create_task(serve())
            long = client.send("POST", url, {}, b"a" * (32 << 20))
            assert (await group.create_task(long)).body == b"ok"
        assert client._origins[url].idle == []
        served.result().close()


async def test_a_change_of_protocols_ends_the_call_and_is_no_failure_of_the_loop() -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    switching = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nrubbish"
    async with serving(say(switching, close=False)) as server:
        assert (await outcome(server.url)).sent
    assert failures == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n%s\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n%s\r\n",
    ],
    ids=["headers", "interim", "trailers"],
)
async def test_the_headers_of_an_answer_are_bounded(answer: bytes) -> None:
    """Each of many small ones takes far more memory than its bytes."""
    many = b"".join(b"%x:\r\n" % number for number in range(MAX_HEAD_BYTES // 32))
    async with serving(say(answer % many, close=False)) as server:
        error = await outcome(server.url, read_seconds=5)
    assert error.sent
    assert "headers" in error.detail


async def test_origins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount's root names its endpoints."""
    monkeypatch.setattr(http_client, "MAX_ORIGINS", 2)
    async with serving(say(OK, close=False)) as server, connected(find_proxy=lambda _: server.url) as client:
        for name in ("a", "b", "c", "a"):
            assert (await post(client, f"http://{name}.test")).body == b"ok"
        assert len(client._origins) == 2
        idle = sum(len(origin.idle) for origin in client._origins.values())
        assert idle == 2


# --- proxies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [HTTPS, HTTP])
@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://ann:hunter2@127.0.0.1:1080",
        "http://socks5://ann:hunter2@127.0.0.1:1080",
        "ftp://ann:hunter2@127.0.0.1:21",
        "http://ann:hunter2@127.0.0.1:99999",
        "http://ann:hunter2@127.0.0.1:x",
        "http://ann:hunter2@[::1",
        "http://ann:hunter2@:80",
        "http://ann:hunter2@127.0.0.1:1/hunter2",
    ],
)
async def test_a_proxy_with_an_invalid_url_gets_nothing_and_shows_no_password(proxy: str, url: str) -> None:
    error = await outcome(url, find_proxy=lambda _: proxy)
    assert not error.sent
    assert "hunter2" not in f"{error!r} {error.detail}"
    assert "proxy" in error.detail.lower()


async def test_an_endless_answer_of_a_proxy_means_that_nothing_was_sent() -> None:
    async with serving(say(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 600_000)) as server:
        assert not (await outcome(HTTPS, find_proxy=lambda _: server.url)).sent


async def test_whatever_fails_before_there_is_a_connection_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of another library")

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", fail)
    assert not (await outcome("http://127.0.0.1:1")).sent
