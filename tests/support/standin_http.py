"""The part of HTTP/1.1 that a stand-in needs: keep-alive, one request at a time, bodies by Content-Length.

Source: RFC 9112. Chunked bodies and pipelining are left out: botocore and aiohttp send neither here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_MAX_HEAD = 65536


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request; ``head`` is the request line and the headers as received."""

    method: str
    target: str
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """Serves one client: hands a request to ``serve`` and waits for ``answer`` before the next."""

    def __init__(self, serve: Callable[[Connection, HttpRequest], None], opened: set[Connection]) -> None:
        """Add itself to ``opened`` while it is open."""
        self._serve = serve
        self._opened = opened
        self._buffer = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self.is_control = False
        self.is_callers = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; uvloop's does not derive from asyncio's class."""
        self._transport = cast("asyncio.Transport", transport)
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the transport; later answers are not sent."""
        del exc
        self._transport = None
        self._opened.discard(self)

    def data_received(self, data: bytes) -> None:
        """Collect bytes, and serve complete requests."""
        self._buffer += data
        self._pump()

    def answer(self, status: int, content_type: str, body: bytes, *, extra: str = "") -> None:
        """Answer the current request; ``extra`` are complete header lines."""
        if self._transport is None:
            return
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{extra}\r\n"
        )
        self._transport.write(head.encode("latin-1") + body)
        self._busy = False
        self._pump()

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection immediately, without an answer; with ``reset``, abort it with RST."""
        if self._transport is not None:
            if reset:
                linger = struct.pack("ii", 1, 0)  # socket(7): close sends RST
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            self._transport.abort()

    def _pump(self) -> None:
        if self._busy or not self._buffer:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                self.cut()
            return
        head = self._buffer[:end]
        start = end + 4
        stop = start + _content_length(head)
        if len(self._buffer) < stop:
            return
        body, self._buffer = self._buffer[start:stop], self._buffer[stop:]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self._busy = True
        self._serve(self, HttpRequest(method, target, head, body))


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lowered.find(b"\r\n", at + 2)
    return int(lowered[at + 17 : end if end > 0 else None])
