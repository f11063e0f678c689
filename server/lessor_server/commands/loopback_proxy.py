"""A proxy on loopback before the embedded AWS: programs of this machine pass, web pages do not.

moto has a control API below ``/moto-api/`` that asks nobody for a key and can switch the checks off. A page
in a browser on this machine can send requests to loopback too, in its own name (the Origin header) or, with
a name that it has pointed at 127.0.0.1, in ours (the Host header): both are refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lessor_server.settings.values import Address

LOOPBACK: Final = "127.0.0.1"
CONTROL: Final = "moto-api"
STOP_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 64 << 10
_CHUNK: Final = 64 << 10
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that end at each hop (RFC 9110, 7.6.1), and Expect, which aiohttp's server answers itself."""


class AddressTaken(Exception):
    """An address can't be listened on."""


def listen(address: Address) -> socket.socket:
    """Open a listening socket; port 0 lets the system choose.

    Raises:
        AddressTaken: Somebody else listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise AddressTaken(
            f"cannot listen on {address}: {why}; stop what listens there, or choose another address"
        ) from None


def address_of(listener: socket.socket, host: str) -> str:
    """Return ``host:port`` of a listening socket, as a URL and a Host header write it."""
    return str(Address(host, listener.getsockname()[1]))


@asynccontextmanager
async def proxying(listener: socket.socket, own: str, upstream: str) -> AsyncIterator[None]:
    """Pass requests from ``listener``, known as ``own`` (host:port), on to the URL ``upstream``."""
    # A connection kept open might be closed under the next request, which then looks like a lost answer.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    session = aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
    )
    async with session:
        server = web.Server(
            Forwarder(session, own, upstream).forward,
            access_log=None,
            auto_decompress=False,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()


class Forwarder:
    """Passes one request on and its answer back, or refuses it."""

    def __init__(self, session: aiohttp.ClientSession, own: str, upstream: str) -> None:
        """Send with ``session`` to ``upstream``; ``own`` and its localhost form are our names."""
        port = own.rpartition(":")[2]
        self._session = session
        self._upstream = upstream
        self._hosts = frozenset({own, f"localhost:{port}"})
        self._origins = frozenset(f"http://{host}" for host in self._hosts)

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request: bodies are streamed both ways, and nothing that is signed is changed."""
        if refusal := self._refusal(request):
            return web.Response(status=HTTPStatus.FORBIDDEN, text=f"{refusal}\n")
        try:
            answer = await self._session.request(
                request.method,
                self._target(request),
                headers=_end_to_end(request.headers),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            )
        except aiohttp.ClientError:
            return web.Response(
                status=HTTPStatus.BAD_GATEWAY, text="the embedded AWS gave no answer; ask again\n"
            )
        async with answer:
            return await _pass_back(request, answer)

    def _target(self, request: web.BaseRequest) -> URL:
        """Return where a request goes; a path quoted anew would no longer fit its signature."""
        return URL(self._upstream + request.raw_path, encoded=True)

    def _refusal(self, request: web.BaseRequest) -> str:
        """Return why a request is refused, or nothing."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "this Host is not the embedded AWS"
        if any(origin not in self._origins for origin in request.headers.getall("Origin", [])):
            return "web pages may not ask the embedded AWS"
        if not request.raw_path.startswith("/"):
            return "only a path can be asked for"
        # The path as moto's server will read it: decoded once, and //x is taken for /x.
        if unquote(self._target(request).raw_path).lstrip("/").lower().startswith(CONTROL):
            return "the control API of the embedded AWS is closed"
        return ""


async def _pass_back(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send an answer of the embedded AWS to who asked."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
    )
    await response.prepare(request)
    async for chunk in answer.content.iter_chunked(_CHUNK):
        await response.write(chunk)
    await response.write_eof()
    return response


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that are meant for the far end."""
    # What Connection names ends at this hop as well.
    named = {name.strip().lower() for line in headers.getall("Connection", []) for name in line.split(",")}
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | named
    )
