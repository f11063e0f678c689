"""The container endpoint of AWS's SDKs: one GET of HTTP/1.1 that answers credentials from memory.

Sources: AWS SDKs and Tools Reference Guide, "Container credential provider"; RFC 9112. Each connection serves
one request. Only a GET without a body is read, so that all that a stranger can send is one short head.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 8192
MAX_CONNECTIONS: Final = 128
HEAD_SECONDS: Final = 5.0
TOKEN_BYTES: Final = 32
_REQUEST_LINE: Final = re.compile(rb"([!-~]+) (/[!-~]*) HTTP/1\.[01]")
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """A status and the JSON object of the body, which may hold credentials."""

    status: int
    body: dict[str, object]

    @classmethod
    def refuse(cls, status: int, code: str, message: str) -> Reply:
        """Return an error as AWS's SDKs show it."""
        return cls(status, {"code": code, "message": message})

    def encode(self) -> bytes:
        """Return the whole response."""
        body = json.dumps(self.body).encode()
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """The path of a request, and its ``Authorization``; empty if it has none."""

    path: str
    host: str
    authorization: str


Answer = Callable[[str], Reply]
"""Returns the reply to an authorized request of a path."""


class Endpoint:
    """Answers requests that have the token and one of the accepted hosts."""

    def __init__(self, token: str, answer: Answer, is_open: Callable[[str], bool] = lambda _: False) -> None:
        """Use ``answer`` for every path; the paths that ``is_open`` need no token, as they hold no secret."""
        self._token = token.encode()
        self._answer = answer
        self._is_open = is_open
        self._hosts: Collection[str] = ()
        self._connections = 0

    @asynccontextmanager
    async def listen(
        self, host: str, port: int, hosts: Callable[[str, int], Collection[str]]
    ) -> AsyncIterator[int]:
        """Serve during the block and yield the port; raises ``OSError`` if it can't listen.

        ``hosts`` returns the accepted Host headers: a web page that guesses the address sends others.
        """
        server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        try:
            bound = int(server.sockets[0].getsockname()[1])
            self._hosts = hosts(host, bound)
            yield bound
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; a client that is slow, or one too many, gets no answer."""
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(HEAD_SECONDS):
                    reply = self.reply(await reader.readuntil(b"\r\n\r\n"))
                    writer.write(reply.encode())
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.LimitOverrunError:
            writer.write(Reply.refuse(400, "BadRequest", "the head of the request is too long").encode())
        finally:
            self._connections -= 1
            writer.close()

    def reply(self, head: bytes) -> Reply:
        """Return the reply to the head of a request."""
        found = parse_head(head)
        if isinstance(found, Reply):
            return found
        if found.host.lower() not in self._hosts:
            return Reply.refuse(403, "Forbidden", f"the Host header must be {' or '.join(self._hosts)}")
        if self._is_open(found.path):
            return self._answer(found.path)
        if not hmac.compare_digest(found.authorization.encode(), self._token):
            return Reply.refuse(
                401, "Unauthorized", "send the token of this endpoint in the Authorization header"
            )
        return self._answer(found.path)


def parse_head(head: bytes) -> Request | Reply:
    """Return the request, or the reply that refuses it."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        return Reply.refuse(400, "BadRequest", "this is not a request of HTTP/1.1")
    headers: dict[str, str] = {}
    for one in lines:
        name, colon, value = one.partition(b":")
        key = name.decode("latin-1").lower()
        if (
            not colon
            or not key
            or key != key.strip()
            or (key in headers and key in {"host", "authorization"})
        ):
            return Reply.refuse(400, "BadRequest", "a header is malformed or repeated")
        headers[key] = value.strip(b" \t").decode("latin-1")
    if line[1] != b"GET":
        return Reply.refuse(405, "MethodNotAllowed", "only GET is served")
    path = line[2].decode("ascii").partition("?")[0]
    return Request(path, headers.get("host", ""), headers.get("authorization", ""))


def own_host(host: str, port: int) -> tuple[str, ...]:
    """Return the Host header of a listen address, in lower case."""
    shown = f"[{host}]" if ":" in host else host
    return (f"{shown}:{port}".lower(),)


def own_host_and_localhost(host: str, port: int) -> tuple[str, ...]:
    """Return the Host header of a listen address, and that of localhost if it is a loopback address."""
    if not is_loopback(host):
        return own_host(host, port)
    local = ("127.0.0.1", "localhost") if host.lower() == "localhost" else (host, "localhost")
    return tuple(dict.fromkeys(name for one in local for name in own_host(one, port)))


def is_loopback(host: str) -> bool:
    """Return whether a listen address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def draw_token() -> str:
    """Return a new token: 32 random bytes in hexadecimal."""
    return os.urandom(TOKEN_BYTES).hex()
