"""Checks that a stranger can't take memory, connections or time by what it sends over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from aiohttp.web import BaseRequest, StreamResponse

from lessor_server.domain.errors.base import Invalid
from lessor_server.http_edge import connections
from lessor_server.http_edge.answers import error_response, json_response
from lessor_server.http_edge.body import MAX_BODY, read_json_body
from lessor_server.http_edge.connections import CallerConnection
from lessor_server.http_edge.edge import EdgeConfig, HttpEdge, HttpPortTaken
from lessor_server.settings.parsers import Address

LOOPBACK = Address("127.0.0.1", 0)
GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Echo:
    """Answers with what it has read."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.knows = False
        self._changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()

    def owns(self, path: str) -> bool:
        return path.startswith("/x")

    async def called(self, times: int) -> None:
        """Wait until requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.methods) >= times)

    async def answer(self, request: BaseRequest) -> StreamResponse:
        async with self._changed:
            self.methods.append(request.method)
            self._changed.notify_all()
        if self.knows:
            assert isinstance(request.protocol, CallerConnection)
            request.protocol.is_known = True
        await self.gate.wait()
        if request.path == "/x/fails":
            raise RuntimeError("a secret of the test")
        try:
            return json_response(200, await read_json_body(request))
        except Invalid as error:
            return error_response(HTTPStatus.BAD_REQUEST, error.violations[0].problem)


class Running:
    """An edge that serves, and what it has reported."""

    def __init__(self, edge: HttpEdge, echo: Echo, reported: list[BaseException]) -> None:
        self.edge, self.echo, self.reported = edge, echo, reported
        self.port = int(edge.url.rpartition(":")[2])

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> list[tuple[int, bytes]]:
        """Send bytes on one connection; return the status and the body of each answer until that closes."""
        async with self.connect() as (reader, writer):
            writer.write(data)
            return answers(await reader.read())


def answers(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = next(
            (int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")),
            0,
        )
        found.append((status, data[:length]))
        data = data[length:]
    return found


@asynccontextmanager
async def running(**config: object) -> AsyncIterator[Running]:
    reported: list[BaseException] = []

    def report(_: str, error: BaseException) -> str:
        reported.append(error)
        return "reference"

    echo = Echo()
    async with asyncio.timeout(30), HttpEdge(EdgeConfig(LOOPBACK, **config), report) as edge:  # type: ignore[arg-type]
        await edge.serve([echo])
        yield Running(edge, echo, reported)


def post(body: bytes, *headers: bytes) -> bytes:
    head = b"\r\n".join(
        (b"POST /x HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *headers)
    )
    return head + b"\r\nConnection: close\r\n\r\n" + body


async def ask(data: bytes) -> tuple[int, bytes]:
    """Return the answer to bytes that end the connection."""
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(data)
        (answer,) = answers(await reader.read())
        assert not edge.reported
        return answer


async def test_the_verbs_of_vault_are_served() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        for verb in (b"GET", b"LIST", b"PUT", b"POST", b"DELETE", b"BREW"):
            writer.write(verb + b" /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        for _ in range(5):
            await reader.readuntil(b"HTTP/1.1 200 ")
        assert edge.echo.methods == ["GET", "LIST", "PUT", "POST", "DELETE", "BREW"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", b"is not JSON"),
        (b"[]", b"is not a JSON object"),
        (b'"x"', b"is not a JSON object"),
        (b"\xff\xfe", b"is not UTF-8"),
        (b'{"a": "\\ud800"}', b"is not UTF-8"),
        (b'{"a": 1, "a": 2}', b"names a member twice"),
        (b'{"a": NaN}', b"is not JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, b"nested more than"),
        (b'{"a":' + b"[" * 10_000, b"is not JSON"),
        (b'{"a": [' + b"[]," * 10_000 + b"[]]}", b"has more than 16384 items"),
        (b'{"a": ' + b"9" * 5_000 + b"}", b"is not JSON"),
        (b" " * (MAX_BODY + 1), b"has more than"),
    ],
    ids=lambda one: str(one[:12]),
)
async def test_a_body_that_is_no_small_json_object_is_refused(body: bytes, problem: bytes) -> None:
    status, answer = await ask(post(body))
    assert status == 400
    assert problem in answer


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"  "])
async def test_a_body_may_be_empty(body: bytes) -> None:
    assert await ask(post(body)) == (200, b"{}")


async def test_a_compressed_body_is_refused() -> None:
    status, answer = await ask(post(b"\x1f\x8b", b"Content-Encoding: gzip"))
    assert (status, b"is compressed" in answer) == (400, True)


async def test_a_body_of_100_mb_is_refused_before_it_is_sent() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(head)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "data",
    [
        post(b"{}", b"Content-Length: 5"),
        post(b"{}", b"Transfer-Encoding: chunked"),
        post(b"{}", b"Transfer-Encoding: identity"),
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length : 2\r\n\r\n{}",
        b"POST /x HTTP/1.1\r\nHost: localhost\r\n Content-Length: 2\r\n\r\n{}",
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: a\x00b\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
        b"GET /x" + b"y" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_a_request_that_parsers_may_read_differently_is_refused(data: bytes) -> None:
    """Each is answered once, and the connection ends: nothing of it becomes a second request."""
    async with running() as edge:
        found = await edge.send(data + GET)
        assert [status for status, _ in found] == [400]
        assert json.loads(found[0][1])["errors"]
        assert not edge.reported


async def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    async with running() as edge:
        ((status, body),) = await edge.send(
            b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: the-token\x00\r\n\r\n"
        )
        assert (status, b"the-token" in body) == (400, False)


@pytest.mark.parametrize("rest", [b"4;" + b"y" * 10_000, b"0\r\n" + b"X: y\r\n" * 500])
async def test_a_body_whose_chunks_are_malformed_is_refused_and_not_reported(rest: bytes) -> None:
    """A report would repeat it in the log."""
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        await edge.echo.called(1)
        writer.write(rest + b"\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        await reader.read()
        assert not edge.reported


@pytest.mark.parametrize(
    "request_line", [b"GET /x HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.0\r\nHost: evil\r\n\r\n"]
)
async def test_a_refusal_names_no_version_of_what_serves(request_line: bytes) -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(request_line)
        assert b"\r\nServer: Lessor\r\n" in await reader.read()


async def test_an_unexpected_exception_ends_one_request_and_its_text_is_only_reported() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(b"GET /x/fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ((status, body),) = answers(await reader.read())
        assert (status, b"reference" in body, b"secret" in body) == (500, True, False)
        assert [str(error) for error in edge.reported] == ["a secret of the test"]


async def test_a_head_that_does_not_end_closes_its_connection() -> None:
    async with running(head_seconds=0.05) as edge:
        for start in (b"", b"GET /x HTTP/1.1\r\n"):
            async with edge.connect() as (reader, writer):
                writer.write(start)
                assert await reader.read() == b""


async def test_a_slow_second_head_closes_its_connection_and_an_idle_one_stays() -> None:
    async with (
        running(head_seconds=0.05) as edge,
        edge.connect() as (slow, writer),
        edge.connect() as (idle, other),
    ):
        for one in (writer, other):
            one.write(GET)
        for reader in (slow, idle):
            await reader.readuntil(b"{}")
        writer.write(b"GET")
        assert await slow.read() == b""
        other.write(GET)
        assert (await idle.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_grows_without_end_closes_its_connection() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        with pytest.raises(ConnectionError):  # noqa: PT012 - which write fails is open
            writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(1_000):
                writer.write(b"X: " + b"y" * 4_000 + b"\r\n")
                await writer.drain()
            await reader.read()
            raise ConnectionError


async def test_a_large_head_behind_a_request_in_progress_is_refused() -> None:
    """Otherwise eight of them, each of 62 lines of 8 KiB, would wait in memory: 20 MiB for a connection."""
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 8_000) for number in range(5))
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.gate.clear()
        writer.write(GET)
        await edge.echo.called(1)
        writer.write(GET.removesuffix(b"\r\n") + fields + b"\r\n")
        edge.echo.gate.set()
        assert [status for status, _ in answers(await reader.read())] == [200, 400]
        assert edge.echo.methods == ["GET"]


async def test_behind_a_malformed_request_nothing_is_kept() -> None:
    """Each error would keep the data in which it was found, up to 256 KiB."""
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.gate.clear()
        writer.write(GET)
        await edge.echo.called(1)
        assert edge.edge._connections is not None
        (connection,) = edge.edge._connections.connections
        for _ in range(3):
            connection.data_received(b"\n" * 100_000)
        ((malformed, _),) = connection._messages
        assert malformed.exc.__traceback__ is None
        edge.echo.gate.set()
        assert [status for status, _ in answers(await reader.read())] == [200, 400]


async def test_idle_connections_make_room_for_new_ones() -> None:
    async with running(max_connections=4) as edge:
        idle = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(4)]
        async with edge.connect() as (reader, writer):
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await idle[0][0].read() == b""
        for _, one in idle:
            one.transport.abort()


async def test_requests_of_strangers_make_room_for_new_connections() -> None:
    async with running(max_connections=1) as edge:
        edge.echo.gate.clear()
        async with edge.connect() as (stranger, writer):
            writer.write(GET)
            await edge.echo.called(1)
            async with edge.connect() as (reader, other):
                assert await stranger.read() == b""
                edge.echo.gate.set()
                other.write(GET)
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_that_is_not_read_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.05)
    async with running() as edge, edge.connect() as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(8):
            writer.write(post(b'{"x": "%s"}' % (b"y" * 1_000_000)).replace(b"Connection: close\r\n", b""))
        with pytest.raises(ConnectionError):  # noqa: PT012 - which write fails is open
            while True:
                writer.write(GET)
                await writer.drain()
                await asyncio.sleep(0)


async def test_connections_with_a_request_of_a_known_caller_are_not_closed_for_new_ones() -> None:
    async with running(max_connections=2) as edge:
        edge.echo.knows = True
        edge.echo.gate.clear()
        busy = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(2)]
        for _, writer in busy:
            writer.write(GET)
        await edge.echo.called(2)
        async with edge.connect() as (reader, _):
            assert await reader.read() == b""
        edge.echo.gate.set()
        for reader, writer in busy:
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.transport.abort()


async def test_pipelined_requests_wait_in_a_short_queue() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.gate.clear()
        writer.write(GET * 100)
        edge.echo.gate.set()
        for _ in range(100):
            await reader.readuntil(b"{}")
        assert len(edge.echo.methods) == 100


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8200", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8200", 200),
        ("vault.example.org", 200),
        ("evil.example", 421),
        ("10.0.0.1", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
async def test_only_names_of_this_server_are_answered(host: str, status: int) -> None:
    async with running(hosts=("vault.example.org",)) as edge:
        data = f"GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        assert [found for found, _ in await edge.send(data)] == [status]


@pytest.mark.parametrize(("listen", "host"), [("localhost", "127.0.0.1"), ("0.0.0.0", "10.0.0.1")])
def test_an_address_that_the_listener_has_is_answered(listen: str, host: str) -> None:
    edge = HttpEdge(EdgeConfig(Address(listen, 0)), lambda *_: "")
    assert edge._knows_host([host])
    assert not edge._knows_host(["evil.example"])


@pytest.mark.parametrize(
    "data",
    [
        b"GET /x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GE T / HTTP/1.1\r\n\r\n",
    ],
)
async def test_an_answer_that_no_face_gives_is_no_page_for_a_browser(data: bytes) -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(data)
        head = (await reader.read()).partition(b"\r\n\r\n")[0]
        assert b"X-Content-Type-Options: nosniff" in head
        assert b"Content-Security-Policy: default-src 'none'" in head


async def test_a_path_that_no_face_owns_is_not_found() -> None:
    async with running() as edge:
        assert (await edge.send(b"GET /y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[0][
            0
        ] == 404


async def test_before_it_serves_every_request_is_put_off() -> None:
    async with HttpEdge(EdgeConfig(LOOPBACK), lambda *_: "") as edge:
        await edge.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]))
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in head
        writer.transport.abort()


async def test_an_address_that_is_taken_is_reported() -> None:
    async with running() as edge:
        taken = HttpEdge(EdgeConfig(Address("127.0.0.1", edge.port)), lambda *_: "")
        with pytest.raises(HttpPortTaken, match=r"cannot listen for HTTP on 127\.0\.0\.1"):
            await taken.open()


async def test_without_an_address_nothing_is_opened() -> None:
    async with HttpEdge(EdgeConfig(None), lambda *_: "") as edge:
        assert await edge.serve([]) == ""


async def test_a_stop_ends_a_request_that_does_not_end() -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        edge.echo.gate.clear()
        writer.write(GET)
        await edge.echo.called(1)
        await edge.edge.stop(0)
        assert await reader.read() == b""


@pytest.mark.parametrize("data", [GET.replace(b"localhost", b"elsewhere"), b"GET /x HTTP/1.1\r\n\r\n"])
async def test_a_refusal_does_not_show_the_versions_of_libraries(data: bytes) -> None:
    async with running() as edge, edge.connect() as (reader, writer):
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nServer: Lessor\r\n" in head
        assert b"aiohttp" not in head
