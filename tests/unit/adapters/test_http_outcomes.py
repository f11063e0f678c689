"""Drives ``HttpClient`` against servers that fail, and compares what it reports with what they saw.

Only a request that no server saw may be reported as not sent: a user that AWS created must be deleted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import botocore.exceptions as sdk
import pytest
from botocore.httpsession import get_cert_path
from tests.support.gateways import NOBODY_THERE
from tests.support.stranger import certified, page

from lessor_server.adapters.aws import http_client
from lessor_server.adapters.aws.error_codes import from_network
from lessor_server.adapters.aws.http_client import HttpClient
from lessor_server.adapters.aws.http_connection import (
    MAX_ANSWER_BYTES,
    MAX_PARTS,
    HttpAnswer,
    NotAnAnswer,
    NotSent,
)
from lessor_server.domain.aws.errors import AwsUnknown
from lessor_server.domain.aws.iam_calls import DeleteUser

Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECRET = "a-secret-of-the-request"


class Server:
    """A server that takes ``step`` after each request, and counts connections and whole requests."""

    def __init__(self, step: Step, *, reads: bool = True) -> None:
        """Take ``step`` without reading if ``reads`` is false."""
        self._step = step
        self._reads = reads
        self.seen: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while not writer.is_closing():
                if self._reads:
                    head = await reader.readuntil(b"\r\n\r\n")
                    _, _, after = head.lower().partition(b"content-length: ")
                    body = await reader.readexactly(int(after.split(b"\r\n")[0])) if after else b""
                    self.seen.append(head + body)
                await self._step(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(step: Step, *, reads: bool = True) -> AsyncIterator[Server]:
    """Run a server on loopback."""
    server = Server(step, reads=reads)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server
        listener.close()


def say(data: bytes, *, close: bool = True) -> Step:
    """Return the step that writes bytes and closes."""

    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return step


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Wait until the client has closed."""
    await reader.read(1)
    raise ConnectionResetError


@asynccontextmanager
async def connected(**options: object) -> AsyncIterator[HttpClient]:
    """Return a client with short deadlines."""
    deadlines = {"connect_seconds": 0.3, "read_seconds": 0.3}
    client = HttpClient(lambda: str(get_cert_path(True)), **{**deadlines, **options})  # type: ignore[arg-type]
    yield client
    client.close()


async def post(client: HttpClient, url: str) -> HttpAnswer:
    """Send a request with a secret in its header and its body."""
    return await client.send("POST", f"{url}/", {"X-Token": SECRET}, f"password={SECRET}".encode())


async def outcome(url: str, **options: object) -> AwsUnknown:
    """Send a request that fails, and return what the engine is given; no error shows a secret."""
    async with connected(**options) as client:
        with pytest.raises(sdk.BotoCoreError) as caught:
            await post(client, url)
    error = from_network(DeleteUser("ann"), caught.value)
    assert isinstance(error, AwsUnknown)
    shown = "".join(map(str, (error, repr(error), error.detail, caught.value, repr(caught.value))))
    assert SECRET not in shown
    return error


# --- never sent, or sent without a clear answer -----------------------------------------------------------

LONG = page(200, b"a" * (MAX_ANSWER_BYTES + 1))
AFTER_THE_REQUEST = {
    "close": say(b""),
    "garbage": say(b"rubbish\r\n\r\n"),
    "half a head": say(b"HTTP/1.1 200 OK\r\nContent-"),
    "cut body": say(page(200, b"abc", length=10)),
    "cut chunk": say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
    "no length": say(b"HTTP/1.1 200 OK\r\n\r\nthe end of the connection ends it"),
    "bad chunk": say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "too long": say(LONG),
    "endless head": say(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 600_000),
    "hang": hang,
    "redirect": say(page(307, b"", "Location: http://127.0.0.1:1/")),
    "only interim": say(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "upgrade": say(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("name", AFTER_THE_REQUEST)
async def test_a_request_that_the_server_saw_may_have_been_carried_out(name: str) -> None:
    async with serving(AFTER_THE_REQUEST[name]) as server:
        assert (await outcome(server.url)).sent
        assert len(server.seen) == server.connections == 1


async def test_a_connection_that_is_closed_at_once_may_have_taken_the_request() -> None:
    """The client cannot see what the server read before."""
    async with serving(say(b""), reads=False) as server:
        assert (await outcome(server.url)).sent


@pytest.mark.parametrize("step", [say(b"rubbish"), say(b""), hang], ids=["garbage", "close", "hang"])
async def test_without_tls_nothing_is_sent(step: Step) -> None:
    async with serving(step, reads=False) as server:
        error = await outcome(server.url.replace("http", "https"))
    assert not error.sent


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (say(page(407, b"<html/>")), "HTTP 407: the proxy refused to connect"),
        (say(page(302, b"", "Location: http://127.0.0.1:1/")), "HTTP 302: the proxy refused to connect"),
        (say(b"rubbish\r\n\r\n"), "Failed to connect to proxy"),
        (say(b""), "Failed to connect to proxy"),
        (hang, ""),
        (say(b"HTTP/1.1 200 Connected\r\n\r\nrubbish"), ""),
        (say(b"HTTP/1.1 200 Connected\r\n\r\n"), ""),
    ],
    ids=["407", "redirect", "garbage", "close", "hang", "answer before TLS", "no TLS"],
)
async def test_without_a_tunnel_nothing_is_sent(step: Step, said: str) -> None:
    async with serving(step) as server:
        proxy = server.url.replace("://", "://user:password@")
        error = await outcome("https://sts.us-east-1.amazonaws.com", find_proxy=lambda _: proxy)
        assert [request.split()[0] for request in server.seen] == [b"CONNECT"]
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==" in server.seen[0]
    assert not error.sent
    assert said in error.detail
    assert "password" not in error.detail


@pytest.mark.parametrize("url", [NOBODY_THERE, "http://nobody.invalid", f"http://{'a' * 64}.test"])
async def test_without_a_connection_nothing_is_sent(url: str) -> None:
    assert not (await outcome(url)).sent
    assert not (await outcome("https://iam.amazonaws.com", find_proxy=lambda _: url)).sent


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    async with serving(say(OK, close=False)) as server, connected() as client:
        for bad in ("a\r\nB: c", "a\nB: c", "a\rB", "a\0"):
            with pytest.raises(NotSent, match="line break"):
                await client.send("POST", server.url, {"A": bad}, b"")
        with pytest.raises(NotSent, match="URL"):
            await client.send("GET", "ftp://127.0.0.1/", {}, b"")
        assert server.connections == 0


# --- connections are used again only where nothing can be mixed up ----------------------------------------


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    async with (
        serving(say(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, close=False)) as server,
        connected() as client,
    ):
        before = threading.active_count()
        for _ in range(3):
            answer = await post(client, server.url)
            assert (answer.status, answer.body) == (200, b"ok")
        (kept,) = client._origins[server.url].idle
        rest = kept._answer, kept._parts, kept._read.body, kept._read.headers
        assert rest == (None, [], b"", {})  # it may have been a secret
        assert (server.connections, len(server.seen)) == (1, 3)
        assert threading.active_count() - before <= 1  # the loop's resolver of names


@pytest.mark.parametrize(
    "answer",
    [
        OK + OK,
        OK + b"rubbish",
        OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_after_an_answer_that_ends_a_connection_another_is_used(answer: bytes) -> None:
    async with serving(say(answer, close=False)) as server, connected() as client:
        for _ in range(2):
            assert (await post(client, server.url)).body == b"ok"
        assert server.connections == 2


async def test_what_arrives_between_requests_is_not_an_answer() -> None:
    more = asyncio.Event()

    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await more.wait()
        writer.write(OK.replace(b"ok", b"no"))

    async with serving(step) as server, connected() as client:
        await post(client, server.url)
        more.set()
        while client._origins[server.url].idle[-1].is_open:  # noqa: ASYNC110  # the loop's own event
            await asyncio.sleep(0)
        assert (await post(client, server.url)).body == b"ok"
        assert server.connections == 2


async def test_a_cancelled_call_closes_its_connection() -> None:
    """The rest of its answer must not become the answer to the next call."""
    half = asyncio.Event()

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if half.is_set():
            writer.write(OK)
            return
        writer.write(page(200, b"half", length=8))
        await writer.drain()
        half.set()
        await hang(reader, writer)

    async with serving(step) as server, connected(connect_seconds=5, read_seconds=5) as client:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(post(client, server.url))
            await half.wait()
            call.cancel()
        assert client._origins[server.url].idle == []
        assert (await post(client, server.url)).body == b"ok"
        assert (server.connections, len(server.seen)) == (2, 2)


async def test_concurrent_calls_get_their_own_answers() -> None:
    server: Server

    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = server.seen[-1].rpartition(b"=")[2]
        await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(number), number))

    async with serving(step) as server, connected(connect_seconds=5, read_seconds=5) as client:

        async def call(number: int) -> None:
            answer = await client.send("POST", server.url, {}, f"number={number}".encode())
            assert answer.body == str(number).encode()

        for _ in range(3):
            async with asyncio.TaskGroup() as group:
                for number in range(200):
                    group.create_task(call(number))
        assert len(client._origins[server.url].idle) <= http_client.MAX_IDLE


async def test_an_idle_connection_is_closed_before_aws_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "IDLE_SECONDS", 0.01)
    async with serving(say(OK, close=False)) as server, connected() as client:
        await post(client, server.url)
        while client._sweeper is not None:  # noqa: ASYNC110  # its own timer
            await asyncio.sleep(0.01)
        assert client._origins[server.url].idle == []
        await post(client, server.url)
        assert server.connections == 2


async def test_a_closed_client_leaves_no_connection() -> None:
    async with serving(say(OK, close=False)) as server, connected() as client:
        await post(client, server.url)
        client.close()
        assert (client._sweeper, client._origins[server.url].idle) == (None, [])


# --- TLS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["", "http", "https"], ids=["direct", "proxy", "proxy over TLS"])
async def test_requests_over_tls_reach_the_host(way: str, tmp_path: Path) -> None:
    host_file, of_host = certified(tmp_path, "aws.test")
    near_file, of_near = certified(tmp_path, "localhost")
    bundle = tmp_path / "bundle"
    bundle.write_bytes(host_file.read_bytes() + near_file.read_bytes())

    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.seen[-1].startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await writer.drain()
            await writer.start_tls(of_host)
        else:
            writer.write(OK)

    server = Server(step)
    tls = None if way == "http" else of_near
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        client = HttpClient(lambda: str(bundle), find_proxy=lambda _: f"{way}://localhost:{port}")
        url = "https://aws.test:8443" if way else f"https://localhost:{port}"
        for _ in range(2):
            assert (await post(client, url)).body == b"ok"
        client.close()
        listener.close()
    starts = [request.split(b"\r\n")[0] for request in server.seen]
    tunnel = [b"CONNECT aws.test:8443 HTTP/1.1"] if way else []
    assert starts == [*tunnel, *[b"POST / HTTP/1.1"] * 2]


async def test_the_authorities_are_looked_for_once_an_origin_and_only_for_tls(tmp_path: Path) -> None:
    file, context = certified(tmp_path, "localhost")
    looks: list[str] = []

    def find() -> str:
        looks.append("look")
        return str(file)

    client = HttpClient(find, find_proxy=lambda _: "")
    async with serving(say(OK, close=False)) as plain:
        await post(client, plain.url)
    assert looks == []
    server = Server(say(OK))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listener:
        for _ in range(2):
            await post(client, f"https://localhost:{listener.sockets[0].getsockname()[1]}")
            client.close()
    assert len(server.seen) == 2
    assert looks == ["look"]


async def test_an_answer_in_very_small_chunks_is_refused() -> None:
    """Each takes as long as a large one."""
    chunks = b"1\r\na\r\n" * (MAX_PARTS + 1)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    async with serving(say(answer)) as server, connected(connect_seconds=5, read_seconds=5) as client:
        with pytest.raises(NotAnAnswer, match=f"HTTP 200: the body has more than {MAX_PARTS} parts"):
            await post(client, server.url)


async def test_a_long_answer_is_read_whole() -> None:
    body = b"a" * MAX_ANSWER_BYTES
    async with (
        serving(say(page(200, body))) as server,
        connected(connect_seconds=5, read_seconds=5) as client,
    ):
        assert (await post(client, server.url)).body == body
    with pytest.raises(NotAnAnswer, match="HTTP 200: the body is longer"):
        async with serving(say(LONG)) as server, connected(connect_seconds=5, read_seconds=5) as client:
            await post(client, server.url)
