"""Sends HTTP/2 frame by frame, as a hostile caller can do and a library would not.

Sources: RFC 9113 (HTTP/2), section 4.1 for the frame and 6 for each kind; RFC 7541 (HPACK), 6.2.2, for
headers written out without compression; the gRPC page "PROTOCOL-HTTP2.md".
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
DEFAULT_WINDOW, FRAME_SIZE = 65_535, 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def setting(number: int, value: int) -> bytes:
    """Return one setting of a SETTINGS frame."""
    return struct.pack(">HI", number, value)


def headers(path: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return the header block of a gRPC call."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *extra,
    ]
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def message(data: bytes, length: int | None = None) -> bytes:
    """Return a gRPC message, or the beginning of one that announces ``length`` bytes."""
    return b"\x00" + struct.pack(">I", len(data) if length is None else length) + data


def _string(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, prefix = len(data) - 127, [127]
    while rest >= 128:
        prefix.append(rest % 128 | 128)
        rest //= 128
    return bytes((*prefix, rest)) + data


def _window_of(settings: bytes, otherwise: int) -> int:
    """Return the initial window of a stream that a SETTINGS frame announces."""
    pairs = dict(struct.iter_unpack(">HI", settings))
    return int(pairs.get(INITIAL_WINDOW_SIZE, otherwise))


class Connection:
    """One connection of a hostile caller; it only counts the frames that come back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin with stream 1."""
        self._reader = reader
        self._writer = writer
        self._stream = -1
        self.frames: dict[int, int] = {}
        self.ended: set[int] = set()
        """Streams that the server has ended or reset."""
        self._room = {0: DEFAULT_WINDOW}
        """The remaining flow-control window of the connection (0) and of each stream."""
        self._new_room = DEFAULT_WINDOW
        self._outbox: dict[int, int] = {}
        self.closed = asyncio.Event()
        self.changed = asyncio.Event()

    @classmethod
    async def open(cls, host: str, port: int, *, window: int = 65_535, preface: bool = True) -> Connection:
        """Connect; the server may send ``window`` bytes on each stream before it must wait."""
        reader, writer = await asyncio.open_connection(host, port)
        connection = cls(reader, writer)
        if preface:
            connection.send(PREFACE + frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, window)))
        return connection

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drained(self) -> None:
        """Wait until everything written is sent."""
        try:
            await self._writer.drain()
        except OSError:
            self.closed.set()

    def call(self, path: str, extra: Iterable[tuple[str, str]] = (), flags: int = END_HEADERS) -> int:
        """Open a stream with only headers; return its number."""
        self._stream += 2
        self.send(frame(HEADERS, flags, self._stream, headers(path, extra)))
        return self._stream

    def data(self, stream: int, payload: bytes, *, end: bool = False) -> None:
        """Send a DATA frame."""
        self.send(frame(DATA, END_STREAM if end else 0, stream, payload))

    def pour(self, stream: int, size: int) -> None:
        """Send ``size`` bytes as fast as the server's flow control allows."""
        self._room[stream] = self._new_room
        self._outbox[stream] = size
        self._pour()

    def _pour(self) -> None:
        for stream in self._outbox:
            while (part := min(self._outbox[stream], FRAME_SIZE, self._room[0], self._room[stream])) > 0:
                self.data(stream, b"x" * part)
                for account in (self._outbox, self._room):
                    account[stream] -= part
                self._room[0] -= part

    def reset(self, stream: int) -> None:
        """Reset a stream."""
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))

    async def read(self) -> None:
        """Read frames until the connection ends: acknowledge settings, count the rest."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
                self.frames[kind] = self.frames.get(kind, 0) + 1
                if kind == SETTINGS and not flags & ACK:
                    self._new_room = _window_of(payload, self._new_room)
                    self.send(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    self.send(frame(PING, ACK, 0, payload))
                elif kind == WINDOW_UPDATE and stream in self._room:
                    self._room[stream] += struct.unpack(">I", payload)[0]
                    self._pour()
                if kind == RST_STREAM or (kind in {DATA, HEADERS} and flags & END_STREAM):
                    self.ended.add(stream)
                    self._outbox.pop(stream, None)
                self.changed.set()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            self.changed.set()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
