"""One HTTP/1.1 connection: sends a request and reads its bounded answer, once at a time.

Sources: RFC 9112; llhttp, by httptools, parses. A body without a length, which ends where the connection
ends, counts as cut: AWS always gives a length.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from dataclasses import dataclass
from typing import Final, NoReturn, cast

import botocore.exceptions as sdk
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_ANSWER_BYTES: Final = 2 << 20
"""More than a page of 1,000 users with the longest names, paths and ARNs."""
_MAX_OVERHEAD_BYTES: Final = 1 << 20
"""Headers and the frames of chunks."""
MAX_HEAD_BYTES: Final = 64 << 10
"""All headers of an answer and its interim ones, in memory; AWS's take 1 KiB."""
MAX_PARTS: Final = 1 << 14
"""The pieces and chunks of a body, each of which costs time; AWS's have some KiB."""
_HEADER_BYTES, _MESSAGE_BYTES = 128, 512
"""What a header takes beside its bytes, and what an interim answer costs in time."""


class NotAnAnswer(sdk.HTTPClientError):  # type: ignore[misc]  # botocore ships no types
    """The response is not an answer of AWS; ``sent`` says whether the request had been sent."""

    fmt = "HTTP {status}: {problem}"

    def __init__(self, status: int, problem: str, *, sent: bool = True, origin: str = "") -> None:
        """Keep the HTTP status, the problem, and optionally the ``origin`` that answered."""
        super().__init__(status=status, problem=problem)
        self.sent = sent
        self.origin = origin


class NotSent(sdk.BotoCoreError):  # type: ignore[misc]  # as above
    """The request can't be written in HTTP."""

    fmt = "the request was not sent: {problem}"


@dataclass(slots=True, repr=False, eq=False)
class HttpAnswer:
    """An answer, read whole; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection to ``origin``, which is all that errors name."""

    def __init__(self, origin: str, sock: socket.socket | None = None) -> None:
        """Begin without a transport; the loop sets it, and reads and writes ``sock``."""
        self._origin = origin
        self._input: select.poll | None = None
        if sock is not None:
            self._input = select.poll()
            self._input.register(sock, select.POLLIN)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = self._timer_at = 0.0
        self._parser: HttpResponseParser | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._read = HttpAnswer(0, {}, b"")
        self._parts: list[bytes] = []
        self._received = self._head = self._length = 0
        self._is_tunnel = False
        self.is_reusable = False
        """Whether the last answer was whole, and nothing followed it."""
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether it can still send."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Return whether it is open, and nothing has arrived that the loop has not read yet.

        What came before a request is not its answer; and if the server has closed the connection, a request
        over it would end without a clear answer.
        """
        return self.is_open and (self._input is None or not self._input.poll(0))

    async def exchange(self, request: bytes, until: float, *, tunnel: bool = False) -> HttpAnswer:
        """Send a request and return its answer; with ``tunnel``, only the answer's head is read.

        Raises:
            NotAnAnswer: The body is cut or too long.
            EndpointConnectionError: It was closed before the request was written.
            ConnectionClosedError: It was closed after it, or the answer is not HTTP.
            ReadTimeoutError: The answer was not whole at the loop's instant ``until``.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise sdk.EndpointConnectionError(endpoint_url=self._origin)
        self._answer = self._loop.create_future()
        self._is_tunnel, self.is_reusable, self._received, self._head = tunnel, False, 0, 0
        self._parser = HttpResponseParser(self)
        self._limit(until)
        try:
            transport.write(request)
            return await self._answer
        finally:
            self._parser = self._answer = None  # the parser refers to this connection
            self._begin()  # the answer may have a secret

    async def encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        """Go on over TLS with ``host``, after a tunnel was opened; raise ``OSError`` if that fails."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)
        if not self.is_open:  # the loop does not report that it was closed meanwhile
            raise ConnectionResetError

    def close(self) -> None:
        """Close it immediately; what it is still sent is not read."""
        self.is_reusable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # --- callbacks of the loop ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's does not derive from asyncio's class."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read bytes of the answer; without a request they must not become the answer to the next."""
        if self._parser is None or self._answer is None or self._answer.done():
            self.close()
            return
        self._received += len(data)
        if self._received > MAX_ANSWER_BYTES + _MAX_OVERHEAD_BYTES:
            self._fail(self._too_long())
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):  # its text may have the answer
            self._fail(self._broken())

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the answer that was not whole."""
        del exc
        self._fail(self._broken())
        self._transport = None

    # --- callbacks of the parser --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that something follows the answer."""
        self.is_reusable = False
        self._head += _MESSAGE_BYTES
        if self._head > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._head += len(name) + len(value) + _HEADER_BYTES
        if self._head > MAX_HEAD_BYTES:
            self._refuse_head()
        self._read.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Keep the status; of a tunnel it is the whole answer."""
        if self._parser is not None:
            self._read.status = self._parser.get_status_code()
        if self._is_tunnel:
            self._succeed(is_reusable=False)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body; after the answer to a tunnel nothing may follow."""
        self._length += len(body)
        if self._is_tunnel:
            self.close()
        elif self._length > MAX_ANSWER_BYTES:
            self._fail(self._too_long())
            raise HttpParserError  # the parser stops
        elif len(self._parts) >= MAX_PARTS:
            problem = f"the body has more than {MAX_PARTS} parts"
            self._fail(NotAnAnswer(self._read.status, problem, origin=self._origin))
            raise HttpParserError
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Return the answer, unless it is an interim one (RFC 9110, 15.2)."""
        if self._read.status < 200:
            self._begin()
        elif self._parser is not None:
            self._succeed(is_reusable=self._parser.should_keep_alive())

    # --- the answer ---------------------------------------------------------------------------------------

    def _refuse_head(self) -> NoReturn:
        status = self._parser.get_status_code() if self._parser is not None else 0
        problem = f"the headers are longer than {MAX_HEAD_BYTES} bytes"
        self._fail(NotAnAnswer(status, problem, origin=self._origin))
        raise HttpParserError  # the parser stops

    def _begin(self) -> None:
        self._read, self._parts, self._length = HttpAnswer(0, {}, b""), [], 0

    def _succeed(self, *, is_reusable: bool) -> None:
        if self._answer is not None and not self._answer.done():
            # What is left of a request would come before the next.
            is_sent = self._transport is not None and not self._transport.get_write_buffer_size()
            self.is_reusable = is_reusable and is_sent
            self._read.body = b"".join(self._parts)
            self._answer.set_result(self._read)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def _limit(self, until: float) -> None:
        """Let the answer fail at an instant; an earlier timer is left as it is, which costs less."""
        self._until = until
        if self._timer is None or self._timer_at > until:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(until, self._on_timer), until

    def _on_timer(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._until:
            self._limit(self._until)
        else:
            self._fail(sdk.ReadTimeoutError(endpoint_url=self._origin))

    def _broken(self) -> Exception:
        if self._read.status:
            return NotAnAnswer(self._read.status, "the body is cut", origin=self._origin)
        return cast("Exception", sdk.ConnectionClosedError(endpoint_url=self._origin))

    def _too_long(self) -> NotAnAnswer:
        problem = f"the body is longer than {MAX_ANSWER_BYTES} bytes"
        return NotAnAnswer(self._read.status, problem, origin=self._origin)
