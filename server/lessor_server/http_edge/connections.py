"""Connections over HTTP/1.1, bounded in number, in the time of a head, in idle time and in size.

aiohttp serves each connection. What it lacks is added here: limits on the size of a request's head and on
the time in which it has to arrive, and errors that repeat nothing of what was sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy, ParseState, RawRequestMessage
from aiohttp.web import BaseRequest, StreamResponse
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_server import Server

from lessor_server.http_edge.answers import error_response

HEAD_SECONDS: Final = 10.0
"""The time in which the head of a request must arrive once the connection is open, or its first byte came."""
IDLE_SECONDS: Final = 120.0
"""An idle connection is closed after this time; Go's clients close theirs after 90 s."""
LINGER_SECONDS: Final = 2.0
"""The time in which the rest of a body that nobody reads is thrown away."""
WRITE_SECONDS: Final = 30.0
"""A connection whose client does not read an answer is closed after this time."""
MAX_LINE: Final = 8 << 10
"""The maximum bytes of the first line, and of each header."""
MAX_HEAD: Final = 32 << 10
"""The maximum bytes of a head, complete or not."""
MAX_HEADERS: Final = 64
MAX_BUFFERED: Final = 64 << 10
PIECE: Final = 8 << 10
"""The bytes that are parsed at once: the parser copies the rest for each chunk of a body."""
MAX_CHUNK_LINES: Final = 4 << 10
"""The maximum lines of a body in chunks, each of which has two: a client's have some KiB."""
MAX_QUEUED: Final = 8
"""The number of requests that are read from one connection before the first is answered."""

Handle = Callable[[BaseRequest], Awaitable[StreamResponse]]
Report = Callable[[str, BaseException], str]
"""Logs an unexpected exception; returns its reference in the log."""

_SILENT: Final = logging.getLogger("lessor_server.http_edge")
_SILENT.disabled = True  # aiohttp's messages repeat what was sent


class Connections(Server):
    """The open connections of one listener."""

    def __init__(self, handle: Handle, report: Report, head_seconds: float = HEAD_SECONDS) -> None:
        """Serve each request by ``handle``; a caller that disconnects cancels it."""
        super().__init__(handle, handler_cancellation=True)
        self.report = report
        self.head_seconds = head_seconds

    def __call__(self) -> CallerConnection:
        """Return the protocol of a new connection."""
        return CallerConnection(self, asyncio.get_running_loop())

    def make_room(self, *, of_known: bool) -> bool:
        """Close the oldest connection that can be spared; return whether there was one.

        First come those on which no caller was identified, the idle before the others, and then, with
        ``of_known``, idle ones of known callers. So strangers keep out nobody but strangers.
        """
        opened = [one for one in self.connections if isinstance(one, CallerConnection)]
        spared = min(opened, key=_worth, default=None)
        if spared is None or _worth(spared) == _BUSY_AND_KNOWN or (spared.is_known and not of_known):
            return False
        spared.abort()
        return True


def _worth(one: CallerConnection) -> tuple[bool, bool]:
    """Return a value by which connections are spared; of equal ones the oldest is first."""
    return one.is_known, not one.is_idle


_BUSY_AND_KNOWN: Final = (True, True)


class _Parser(HttpRequestParserPy):
    """Bounds the size of a complete head: up to 8 of them wait in memory behind a request in progress."""

    @property
    def is_in_chunks(self) -> bool:
        """Return whether the body of a request, in chunks, is not complete."""
        body = self._payload_parser
        return body is not None and body._type is ParseState.PARSE_CHUNKED  # noqa: SLF001 - nothing else shows it

    def parse_message(self, lines: list[bytes]) -> RawRequestMessage:
        """Return the head in ``lines``; raise ``BadHttpMessage`` if it is malformed or larger than 32 KiB."""
        if sum(map(len, lines)) > MAX_HEAD:
            raise BadHttpMessage("the head is too large")
        return super().parse_message(lines)


class CallerConnection(RequestHandler):
    """One connection."""

    __slots__ = (
        *("_head_bytes", "_head_seconds", "_head_timer"),
        *("_chunk_lines", "_is_malformed", "_report", "_write_timer", "is_known"),
    )

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without a request."""
        super().__init__(
            connections,
            loop=loop,
            keepalive_timeout=IDLE_SECONDS,
            logger=_SILENT,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=MAX_BUFFERED,
            auto_decompress=False,
        )
        # The parser in C refuses the verb LIST, which Vault's clients send.
        self._parser = _Parser(
            self,
            loop,
            MAX_BUFFERED,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=MAX_QUEUED,
        )
        self._max_msg_queue_size, self._msg_queue_resume_size = MAX_QUEUED, MAX_QUEUED // 2
        self._report = connections.report
        self.is_known = False
        """Whether a caller was identified on it."""
        self._head_seconds = connections.head_seconds
        self._is_malformed = False
        self._chunk_lines = 0
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the head, and the answer that is not read."""
        self._forget_head()
        self._forget_write()
        super().connection_lost(exc)

    def abort(self) -> None:
        """End the connection immediately, also if its client does not read what was sent."""
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answer, for 30 s at most."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self._loop.call_later(WRITE_SECONDS, self.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._forget_write()
        super().resume_writing()

    def _forget_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def data_received(self, data: bytes) -> None:
        """Parse data; bound the time and the size of a head that is not complete.

        What comes behind a malformed request is dropped: the answer to that one closes the connection.
        """
        before = self._request_count
        for start in range(0, len(data) or 1, PIECE):
            self._parse(data[start : start + PIECE])
        if self._request_count != before or not self.is_idle:
            self._forget_head()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD:
            self._end_head()
        elif self._head_timer is None:
            self._wait_for_head()

    def _parse(self, data: bytes) -> None:
        """Parse at most 8 KiB; end the connection if its body is in very many chunks: each takes time.

        Stop at a malformed request, and release the data that the frames of its error hold.
        """
        if self._is_malformed or not isinstance(self._parser, _Parser):
            return
        before = self._request_count
        if self._parser.is_in_chunks:
            self._chunk_lines += data.count(b"\r\n")
        if self._chunk_lines > MAX_CHUNK_LINES:
            self.abort()
            return
        super().data_received(data)
        if self._request_count != before:
            self._chunk_lines = 0
        last = self._messages[-1][0] if self._messages else None
        if isinstance(last, _ErrInfo):
            self._is_malformed = True
            last.exc.__traceback__ = last.exc.__context__ = last.exc.__cause__ = None

    def _wait_for_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._end_head)

    def _forget_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_head(self) -> None:
        self._head_timer = None
        self.force_close()

    def handle_error(
        self,
        request: BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may repeat what was sent
    ) -> StreamResponse:
        """Return the answer to a malformed request, or to an unexpected exception."""
        problem = "the request is not valid HTTP/1.1; check what sends it"
        if status >= 500:
            reference = self._report("http", exc) if exc is not None else ""
            problem = f"an unexpected error, reference {reference}; report it"
        response = error_response(HTTPStatus(status), problem)
        response.force_close()
        return response

    def log_exception(self, *_: Any, **details: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        """Report an exception that has ended a connection, unless a malformed body is its cause."""
        error = details.get("exc_info")
        if isinstance(error, RequestPayloadError | HttpProcessingError):
            return  # its text repeats what was sent, and a stranger could fill the log with it
        if isinstance(error, BaseException):
            self._report("http", error)
