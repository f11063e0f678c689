"""Listeners that are not a Lessor server, as they stand where one should be: each serves in threads."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.certificates import KeyPair
from tests.support.http2 import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame

MAX_WAIT = 30.0
DRIP_SECONDS = 0.05
FRAME_HEAD = 9
"""The bytes before the content of a frame of HTTP/2 (RFC 9113, section 4.1)."""
PAGE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno"

Serve = Callable[[socket.socket], None]
"""Serves one connection."""


def stay_silent(connection: socket.socket) -> None:
    """Read, and answer nothing, until the client leaves."""
    while connection.recv(1 << 16):
        pass


def drip(connection: socket.socket) -> None:
    """Send a head that does not end, slower than any reader would like, until the client leaves."""
    connection.recv(1 << 16)
    while not select.select([connection], [], [], DRIP_SECONDS)[0]:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")


def close(connection: socket.socket) -> None:
    """Close the connection, as a load balancer without a server behind it does."""
    connection.recv(1)


def answer_http1(connection: socket.socket) -> None:
    """Answer one request of HTTP/1.1 with an error page, as a proxy does."""
    connection.recv(1 << 16)
    connection.sendall(PAGE)


def answer_http2(connection: socket.socket) -> None:
    """Answer one request of HTTP/2 with an error page, as a web server does that knows no gRPC."""
    connection.sendall(frame(SETTINGS, 0, 0))
    with connection.makefile("rb") as reader:
        reader.read(len(PREFACE))
        kind = SETTINGS
        while kind != HEADERS:
            head = reader.read(FRAME_HEAD)
            if len(head) < FRAME_HEAD:
                return
            kind = head[3]
            reader.read(int.from_bytes(head[:3]))
    head = _field(":status", "502") + _field("content-type", "text/html")
    page = frame(HEADERS, END_HEADERS, 1, head) + frame(DATA, END_STREAM, 1, b"no")
    connection.sendall(frame(SETTINGS, ACK, 0) + page)
    stay_silent(connection)


def _field(name: str, value: str) -> bytes:
    """Return a header without compression (RFC 7541, section 6.2.2)."""
    return b"".join((b"\0", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()))


@contextmanager
def broken_listener(serve: Serve, pair: KeyPair | None = None, alpn: str = "h2") -> Iterator[int]:
    """Serve each connection by ``serve`` while the block runs; yield the port. A certificate means TLS."""
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        context.set_alpn_protocols([alpn])

    def work(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.settimeout(MAX_WAIT)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                serve(connection)
        connection.close()

    def accept() -> None:
        with suppress(OSError):  # it was shut down
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=work, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
