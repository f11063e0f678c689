"""The container endpoint reads one short request and answers strangers nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.clients import until

from lessor.leasing.endpoint import (
    MAX_HEAD_BYTES,
    Endpoint,
    Reply,
    Request,
    own_host,
    own_host_and_localhost,
    parse_head,
)

TOKEN = "t" * 64


def served(_: str) -> Reply:
    """Answer every path."""
    return Reply(200, {"AccessKeyId": "AKIA"})


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", 405),
        (b"\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
    ],
)
def test_a_malformed_head_is_refused(head: bytes, status: int) -> None:
    found = parse_head(head)
    assert isinstance(found, Reply)
    assert found.status == status


def test_a_request_is_its_path_its_host_and_its_authorization() -> None:
    found = parse_head(
        b"GET /creds/aws/app?x=1 HTTP/1.1\r\nhOST:\t127.0.0.1:1 \r\nAuthorization: a b\r\n\r\n"
    )
    assert isinstance(found, Request)
    assert (found.path, found.host, found.authorization) == ("/creds/aws/app", "127.0.0.1:1", "a b")


def test_hosts_are_those_of_the_address() -> None:
    assert own_host("127.0.0.1", 80) == ("127.0.0.1:80",)
    assert own_host("::1", 1) == ("[::1]:1",)
    assert own_host_and_localhost("127.0.0.1", 1) == ("127.0.0.1:1", "localhost:1")
    assert own_host_and_localhost("localhost", 1) == ("127.0.0.1:1", "localhost:1")
    assert own_host_and_localhost("169.254.170.2", 1) == ("169.254.170.2:1",)


async def exchange(port: int, *parts: bytes) -> bytes:
    """Send parts and read until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_request_in_parts_is_answered_and_a_long_one_refused() -> None:
    async with Endpoint(TOKEN, served).listen("127.0.0.1", 0, own_host) as port:
        head = f"Host: 127.0.0.1:{port}\r\nAuthorization: {TOKEN}\r\n\r\n".encode()
        assert (await exchange(port, b"GET / HT", b"TP/1.1\r\n", head)).startswith(b"HTTP/1.1 200 OK\r\n")
        wrong = head.replace(TOKEN.encode(), b"\xff\xfe")
        assert (await exchange(port, b"GET / HTTP/1.1\r\n", wrong)).startswith(b"HTTP/1.1 401 ")
        long = b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * MAX_HEAD_BYTES) + b"\r\n\r\n"
        assert (await exchange(port, long)).startswith((b"HTTP/1.1 400 ", b""))


async def test_nothing_is_kept_of_a_client_that_goes_away() -> None:
    endpoint = Endpoint(TOKEN, served)
    async with endpoint.listen("127.0.0.1", 0, own_host) as port:
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET")
            writer.close()
            await writer.wait_closed()
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {TOKEN}\r\n\r\n".encode()
        await until(lambda: exchange(port, head), lambda answer: answer.startswith(b"HTTP/1.1 200 "))


def test_no_reply_shows_its_body_in_its_repr() -> None:
    assert "AKIA" not in repr(served("/"))
    assert TOKEN not in repr(Request("/", "", TOKEN))
