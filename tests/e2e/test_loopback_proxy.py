"""The proxy before the embedded AWS: what passes is not changed, and what is refused goes no further."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from lessor_server.commands.loopback_proxy import address_of, listen, proxying
from lessor_server.settings import Address

pytestmark = pytest.mark.e2e

LOOPBACK = "127.0.0.1"
ZIPPED = gzip.compress(b"an answer")


@dataclass
class Seen:
    """One request as the far end saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FarEnd:
    """Stands where the embedded AWS would, keeps what comes, and holds its answers' second half back."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keep a request and answer it."""
        body = await request.content.read()
        self.seen.append(Seen(request.method, request.raw_path, dict(request.headers), body))
        if request.path == "/zipped":
            return web.Response(body=ZIPPED, headers={"Content-Encoding": "gzip"})
        if request.path == "/halves":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            await self.go_on.wait()
            await response.write(b"second")
            return response
        return web.Response(status=418, text="from afar", headers={"X-Amzn-RequestId": "one"})


@dataclass
class World:
    """A proxy, what stands behind it, and a session to ask the proxy with."""

    own: str
    far: FarEnd
    session: aiohttp.ClientSession

    def ask(self, method: str, path: str, **more: object) -> aiohttp.client._RequestContextManager:
        """Ask the proxy for a path, written exactly so."""
        url = URL(f"http://{self.own}{path}", encoded=True)
        return self.session.request(method, url, allow_redirects=False, **more)  # type: ignore[arg-type]

    async def raw(self, text: str) -> bytes:
        """Send a request letter by letter and return the first line of the answer."""
        host, _, port = self.own.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text.encode())
        try:
            return await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def far_end() -> AsyncIterator[FarEnd]:
    """Run a far end for the length of the block."""
    far = FarEnd()
    runner = web.ServerRunner(web.Server(far.answer, auto_decompress=False), shutdown_timeout=1)
    await runner.setup()
    listener = listen(Address(LOOPBACK, 0))
    await web.SockSite(runner, listener).start()
    far.url = f"http://{address_of(listener, LOOPBACK)}"
    yield far
    await runner.cleanup()


@pytest.fixture(name="world")
async def proxy() -> AsyncIterator[World]:
    """Put a proxy before a far end."""
    with listen(Address(LOOPBACK, 0)) as listener:
        own = address_of(listener, LOOPBACK)
        async with (
            far_end() as far,
            proxying(listener, own, far.url),
            aiohttp.ClientSession(auto_decompress=False) as session,
        ):
            yield World(own, far, session)


async def test_a_request_and_its_answer_pass_unchanged(world: World) -> None:
    """Method, path as quoted, signed headers, Host and body arrive as sent, else no signature would fit."""
    body = bytes(range(256)) * 8192
    path = "/a%2Fb/..%2f/c%20d?x=%7e&Action=ListUsers"
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x", "X-Amz-Date": "now"}
    async with world.ask("PUT", path, data=body, headers=signed) as answer:
        assert (answer.status, await answer.text()) == (418, "from afar")
        assert answer.headers["X-Amzn-RequestId"] == "one"
    (seen,) = world.far.seen
    assert (seen.method, seen.path, seen.body) == ("PUT", path, body)
    assert seen.headers["Host"] == world.own
    assert signed.items() <= seen.headers.items()
    assert seen.headers["Content-Length"] == str(len(body))


async def test_what_is_compressed_stays_so(world: World) -> None:
    """The proxy opens no body, in neither direction."""
    headers = {"Content-Encoding": "gzip"}
    async with world.ask("POST", "/zipped", data=gzip.compress(b"asked"), headers=headers) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.read() == ZIPPED
    assert gzip.decompress(world.far.seen[0].body) == b"asked"


async def test_an_answer_streams(world: World) -> None:
    """The first half of an answer is there while the second is still to be written."""
    async with world.ask("GET", "/halves") as answer:
        assert await answer.content.readexactly(5) == b"first"
        world.far.go_on.set()
        assert await answer.read() == b"second"


async def test_headers_of_the_hop_end_at_it(world: World) -> None:
    """What belongs to one connection, by the RFC or by what Connection names, is not passed on."""
    headers = {"Connection": "X-Mine, keep-alive", "X-Mine": "1", "TE": "trailers", "X-Yours": "2"}
    async with world.ask("GET", "/", headers=headers) as answer:
        assert answer.status == 418
    (seen,) = world.far.seen
    assert seen.headers["X-Yours"] == "2"
    assert not {"X-Mine", "TE"} & seen.headers.keys()


@pytest.mark.parametrize(
    "path",
    ["/moto-api/reset-auth", "/moto-api", "//moto-api/reset", "/%6doto-api/data.json", "/MOTO-API/",
     "/%2Fmoto-api/reset", "/moto%2dapi/config?x=1"],
)  # fmt: skip
async def test_the_control_api_is_closed(world: World, path: str) -> None:
    """However its path is written, moto's control API, which asks nobody for a key, is not reached."""
    async with world.ask("POST", path, data=b"0") as answer:
        assert answer.status == 403
    assert world.far.seen == []


async def test_an_object_named_like_the_control_api_passes(world: World) -> None:
    """Only the beginning of a path counts: a bucket may hold what it likes."""
    async with world.ask("GET", "/bucket/moto-api/key") as answer:
        assert answer.status == 418


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "motoapi.amazonaws.com"])
async def test_a_foreign_host_is_refused(world: World, host: str) -> None:
    """A name that somebody pointed at 127.0.0.1 opens nothing."""
    async with world.ask("GET", "/", headers={"Host": host}) as answer:
        assert answer.status == 403
    assert world.far.seen == []


async def test_localhost_is_a_name_of_ours(world: World) -> None:
    """Who writes localhost for 127.0.0.1 is served."""
    port = world.own.rpartition(":")[2]
    async with world.ask("GET", "/", headers={"Host": f"localhost:{port}"}) as answer:
        assert answer.status == 418


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "http://localhost"])
async def test_a_foreign_origin_is_refused(world: World, origin: str) -> None:
    """A web page's request says where the page is from, and goes no further."""
    async with world.ask("POST", "/", headers={"Origin": origin}, data=b"Action=ListUsers") as answer:
        assert answer.status == 403
    assert world.far.seen == []


async def test_a_page_of_its_own_may_ask(world: World) -> None:
    """What the embedded AWS itself served is no foreign page."""
    async with world.ask("GET", "/", headers={"Origin": f"http://{world.own}"}) as answer:
        assert answer.status == 418


@pytest.mark.parametrize(
    "line", ["GET http://motoapi.amazonaws.com/moto-api/ HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
async def test_only_paths_are_asked_for(world: World, line: str) -> None:
    """A request line with a whole URL could name another place than its Host."""
    first = await world.raw(f"{line}\r\nHost: {world.own}\r\nConnection: close\r\n\r\n")
    assert b" 403 " in first
    assert world.far.seen == []


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:1", "OWN"], ["OWN", "evil.example"]])
async def test_one_host_must_be_named(world: World, hosts: list[str]) -> None:
    """Without a Host, or with two of them, nobody can tell what is meant."""
    lines = "".join(f"Host: {host.replace('OWN', world.own)}\r\n" for host in hosts)
    first = await world.raw(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")
    assert b" 403 " in first or b" 400 " in first
    assert world.far.seen == []


async def test_no_answer_from_behind_is_a_502() -> None:
    """Where nothing listens behind the proxy, the caller is told so and may ask again."""
    with listen(Address(LOOPBACK, 0)) as listener, listen(Address(LOOPBACK, 0)) as gone:
        own, nobody = address_of(listener, LOOPBACK), address_of(gone, LOOPBACK)
        gone.close()
        async with (
            proxying(listener, own, f"http://{nobody}"),
            aiohttp.ClientSession() as session,
            session.get(f"http://{own}/") as answer,
        ):
            assert answer.status == 502
