"""A small HTTP server in the clear for metrics and probes: GET and HEAD of a few paths, and nothing else.

Each connection has one request. Its head, its size, its time and the number of connections are bounded, so a
stranger can take neither memory nor time from the service.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

from lessor_server.domain.errors.base import LessorError

MAX_CONNECTIONS, MAX_OF_PEER = 64, 16
"""Of all clients, and of one address: it can't keep the probes of others out."""
MAX_HEAD: Final = 8 << 10
"""The maximum bytes of a request's line and headers."""
HEAD_SECONDS: Final = 5.0
"""The time in which the head of a request must arrive."""
ANSWER_SECONDS: Final = 10.0
"""The time in which an answer is made and the client has read it."""
REST_SECONDS: Final = 1.0
MAX_BUFFERED: Final = 64 << 10
_END: Final = b"\r\n\r\n"
_TEXT: Final = "text/plain; charset=utf-8"


class MetricsPortTaken(LessorError):
    """The address for metrics is in use, or not this machine's."""

    reason = "CANNOT_LISTEN_FOR_METRICS"
    fix = "stop the process that listens there, or set another address with LESSOR_METRICS_LISTEN"


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A status, and a body with its type."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = _TEXT


Handler = Callable[[Mapping[str, str]], Awaitable[HttpReply]]
"""Takes the headers of a request, with names in lower case."""


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    path: str
    headers: Mapping[str, str]


class HttpListener:
    """Serves the handlers of a few paths."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        report: Callable[[str, BaseException], str],
        *,
        head_seconds: float = HEAD_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Serve each path of ``handlers``; unexpected exceptions go to ``report``."""
        self._handlers = handlers
        self._report = report
        self._head_seconds = head_seconds
        self._answer_seconds = answer_seconds
        self._of_peer = Counter[str]()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[str]:
        """Serve while the block runs; yield the address, with the port that the system chose.

        Raises:
            MetricsPortTaken: The address can't be used.
        """
        group = asyncio.TaskGroup()
        accept = partial(self._accept, group)
        try:
            server = await asyncio.start_server(
                accept, host, port, limit=MAX_HEAD, backlog=MAX_CONNECTIONS, start_serving=False
            )
        except (OSError, OverflowError) as error:
            raise _taken(_address(host, port), error) from None
        async with self._run_server(server, group):
            yield _address(host, server.sockets[0].getsockname()[1])

    @asynccontextmanager
    async def listen_locally(self, place: str) -> AsyncIterator[None]:
        """Serve processes of the same user on an abstract unix socket while the block runs (Linux).

        Raises:
            MetricsPortTaken: The socket can't be used.
        """
        group = asyncio.TaskGroup()
        accept = partial(self._accept_own, group)
        try:
            server = await asyncio.start_unix_server(
                accept, f"\0{place}", limit=MAX_HEAD, backlog=MAX_CONNECTIONS, start_serving=False
            )
        except OSError as error:
            raise _taken(f"the socket {place}", error) from None
        async with self._run_server(server, group):
            yield

    @asynccontextmanager
    async def _run_server(self, server: asyncio.Server, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        async with group:
            try:
                await server.start_serving()
                yield
            finally:
                server.close()
                for task in self._tasks:
                    task.cancel()

    def _accept_own(
        self, group: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection of the same user."""
        try:
            require_same_user(writer)
        except OSError:
            writer.transport.abort()
            return
        self._accept(group, reader, writer)

    def _accept(
        self, group: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection, or close it if too many are open."""
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        if len(self._tasks) >= MAX_CONNECTIONS or self._of_peer[peer] >= MAX_OF_PEER:
            writer.transport.abort()
            return
        self._of_peer[peer] += 1
        task = group.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, peer))

    def _forget(self, peer: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close its connection whatever happens."""
        try:
            with suppress(ConnectionError, TimeoutError):
                writer.transport.set_write_buffer_limits(MAX_BUFFERED)
                head = await self._read(reader)
                async with asyncio.timeout(self._answer_seconds):
                    reply = head if isinstance(head, HttpReply) else await self._answer(head)
                    with_body = isinstance(head, HttpReply) or head.method != "HEAD"
                    writer.write(_write_reply(reply, with_body=with_body))
                    await writer.drain()
                    if reply.status >= HTTPStatus.BAD_REQUEST:
                        await _read_rest(reader, writer)
                    writer.close()
                    await writer.wait_closed()
        except Exception as error:  # noqa: BLE001 - it ends one connection, and nothing else
            self._report("metrics listener", error)
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> _Head | HttpReply:
        """Return the head of the request, or the answer that refuses it."""
        try:
            async with asyncio.timeout(self._head_seconds):
                data = await reader.readuntil(_END)
        except TimeoutError:
            return _plain(HTTPStatus.REQUEST_TIMEOUT)
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError:
            raise ConnectionError from None
        return _parse(data)

    async def _answer(self, head: _Head) -> HttpReply:
        handler = self._handlers.get(head.path)
        if handler is None:
            return _plain(HTTPStatus.NOT_FOUND)
        if head.method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        return await handler(head.headers)


async def _read_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what a refused client still sends, a little: unread bytes would reset its connection."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_SECONDS):
            for _ in range(MAX_BUFFERED // MAX_HEAD):
                if not await reader.read(MAX_HEAD):
                    return


def _parse(data: bytes) -> _Head | HttpReply:
    """Return the parts of a request's head, or the answer that refuses it (RFC 9112, sections 3 and 5)."""
    first, *lines = data[: -len(_END)].decode("latin-1").split("\r\n")
    match first.split(" "):
        case [method, target, "HTTP/1.0" | "HTTP/1.1"] if target.startswith("/") and method.isalpha():
            headers = {}
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon or not name or name.strip() != name:
                    return _plain(HTTPStatus.BAD_REQUEST)
                headers[name.lower()] = value.strip()
            return _Head(method, target.partition("?")[0], headers)
    return _plain(HTTPStatus.BAD_REQUEST)


def _plain(status: HTTPStatus) -> HttpReply:
    return HttpReply(status, f"{status.phrase}\n".encode())


def _write_reply(reply: HttpReply, *, with_body: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if reply.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\n{allow}Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (reply.body if with_body else b"")


def require_same_user(writer: asyncio.StreamWriter) -> None:
    """Raise ``PermissionError`` if another user's process has the other end of a unix socket.

    Source: unix(7), SO_PEERCRED: the process, the user and the group that have connected or listened.
    """
    sock = writer.get_extra_info("socket")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user != os.geteuid():
        raise PermissionError("the socket belongs to another user")


def _taken(address: str, error: Exception) -> MetricsPortTaken:
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if number else str(error)
    return MetricsPortTaken(f"cannot listen for metrics on {address}: {why}")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
