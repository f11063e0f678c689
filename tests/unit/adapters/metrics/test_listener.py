"""Checks the HTTP listener for metrics and probes, also with clients that abuse it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from lessor_server.adapters.metrics.listener import (
    MAX_CONNECTIONS,
    MAX_HEAD,
    MAX_OF_PEER,
    HttpListener,
    HttpReply,
    MetricsPortTaken,
)


@dataclass
class Served:
    """A listener on a port that the system chose, and what it reported."""

    port: int = 0
    reports: list[BaseException] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    large_sent: asyncio.Event = field(default_factory=asyncio.Event)
    listener: HttpListener | None = None
    waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def hello(self, headers: Mapping[str, str]) -> HttpReply:
        self.headers.append(headers)
        return HttpReply(HTTPStatus.OK, b"hello\n", "text/x-hello")

    async def wait(self, _: Mapping[str, str]) -> HttpReply:
        self.waiting.release()
        await self.may_answer.wait()
        return HttpReply(HTTPStatus.OK, b"at last\n")

    async def large(self, _: Mapping[str, str]) -> HttpReply:
        self.large_sent.set()
        return HttpReply(HTTPStatus.OK, bytes(64 << 20))

    async def fail(self, _: Mapping[str, str]) -> HttpReply:
        raise RuntimeError("a defect")

    def report(self, _: str, error: BaseException) -> str:
        self.reports.append(error)
        return ""

    async def open(self, peer: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(peer, 0))

    async def send(self, request: bytes) -> bytes:
        """Send a request and return all that comes back until the connection ends."""
        reader, writer = await self.open()
        writer.write(request)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body


@asynccontextmanager
async def serving(**seconds: float) -> AsyncIterator[Served]:
    s = Served()
    paths = {"/hello": s.hello, "/wait": s.wait, "/large": s.large, "/fail": s.fail}
    s.listener = HttpListener(paths, s.report, **seconds)
    async with s.listener.listen("127.0.0.1", 0) as address:
        s.port = int(address.rpartition(":")[2])
        yield s


@pytest.fixture(name="s")
async def served() -> AsyncIterator[Served]:
    async with serving() as s:
        yield s


async def test_a_path_is_answered(s: Served) -> None:
    status, headers, body = await s.get("/hello?query=ignored")
    assert (status, body, headers["Content-Type"]) == (200, b"hello\n", "text/x-hello")
    assert headers["Content-Length"] == "6"
    assert s.headers == [{"host": "x", "accept": "a/b"}]


async def test_head_has_the_length_and_no_body(s: Served) -> None:
    status, headers, body = await s.get("/hello", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "6")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /absent HTTP/1.1\r\n\r\n", 404),
        (b"POST /hello HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\n\r\n", 400),
        (b"GET  /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nname : value\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
async def test_another_request_is_refused(s: Served, request_: bytes, status: int) -> None:
    assert (await s.send(request_)).startswith(f"HTTP/1.1 {status} ".encode())
    assert s.reports == []


async def test_an_endless_head_is_not_kept(s: Served) -> None:
    reader, writer = await s.open()
    writer.write(b"GET /hello HTTP/1.1\r\n" + b"X: y\r\n" * 100_000)
    assert (await reader.read(12)) == b"HTTP/1.1 431"
    writer.close()


async def test_a_slow_head_is_cut_off() -> None:
    async with serving(head_seconds=0.05) as s, asyncio.timeout(10):
        reader, writer = await s.open()
        writer.write(b"GET /hello HTTP/1.1\r\n")
        assert (await reader.read(12)) == b"HTTP/1.1 408"
        writer.close()


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(answer_seconds=0.05) as s, asyncio.timeout(10):
        reader, writer = await s.open()
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await s.large_sent.wait()
        while s.listener is None or s.listener._tasks:  # noqa: ASYNC110 - a plain set
            await asyncio.sleep(0.005)
        writer.transport.resume_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(64 << 20)
        writer.close()


async def test_connections_beyond_the_limits_are_closed_and_others_go_on(s: Served) -> None:
    """One address has a limit of its own, so another one is still served."""
    peers = [f"127.0.0.{number}" for number in range(2, 2 + MAX_CONNECTIONS // MAX_OF_PEER)]
    await check_limit(s, MAX_OF_PEER, peers[:1], peers[0], still_served=peers[1])
    await check_limit(s, MAX_OF_PEER, peers, "127.0.0.100")


async def check_limit(s: Served, count: int, peers: list[str], refused: str, still_served: str = "") -> None:
    """Open ``count`` connections from each peer; check that one more from ``refused`` is closed."""
    s.may_answer.clear()
    waiting = [await s.open(peer) for peer in peers for _ in range(count)]
    for _, writer in waiting:
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
    for _ in waiting:
        await s.waiting.acquire()
    reader, writer = await s.open(refused)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(10):
            await reader.readexactly(1)
    writer.close()
    if still_served:
        reader, writer = await s.open(still_served)
        writer.write(b"GET /hello HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"hello\n")
        writer.close()
    s.may_answer.set()
    for reader, writer in waiting:
        assert (await reader.read()).endswith(b"at last\n")
        writer.close()
    assert (await s.get("/hello"))[0] == 200


async def test_a_defect_ends_one_connection_and_is_reported(s: Served) -> None:
    assert await s.send(b"GET /fail HTTP/1.1\r\n\r\n") == b""
    assert [str(error) for error in s.reports] == ["a defect"]
    assert (await s.get("/hello"))[0] == 200


async def test_a_taken_port_is_an_error_with_its_fix(s: Served) -> None:
    with pytest.raises(MetricsPortTaken) as raised:
        async with HttpListener({}, s.report).listen("127.0.0.1", s.port):
            pass
    assert "LESSOR_METRICS_LISTEN" in raised.value.fix


async def test_open_connections_end_with_the_listener() -> None:
    async with asyncio.timeout(10):
        async with serving() as s:
            reader, writer = await s.open()
            writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
            await s.waiting.acquire()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        assert s.reports == []
