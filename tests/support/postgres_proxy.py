"""A proxy between a store and PostgreSQL that fails as networks do; it can speak TLS as PostgreSQL does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a client that wants TLS sends first (PostgreSQL, "SSLRequest")."""
BLOCK = 1 << 16


@dataclass(slots=True)
class PostgresProxy:
    """Passes bytes on between ``port`` and a unix socket; a test changes how."""

    socket: Path
    port: int = 0
    delay: float = 0.0
    """How many seconds each block of the server's waits."""
    is_refusing: bool = False
    """Whether new connections are closed at once."""
    is_silent: bool = False
    """Whether nothing is passed on, and nothing is closed."""
    cut_before: Callable[[bytes], bool] = lambda _: False
    """Whether a block of the client ends its connection instead of being passed on."""
    drop_answer: Callable[[bytes], bool] = lambda _: False
    """Whether a block of the server ends the client's connection instead of being passed on."""
    tls: ssl.SSLContext | None = None
    connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self, database: str, user: str = "lessor", host: str = "127.0.0.1", **parameters: str) -> str:
        """Return the URI of a database behind the proxy."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@{host}:{self.port}/{database}" + (f"?{query}" if query else "")

    def drop_all(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def close_half(self) -> None:
        """End one direction of all connections: the client gets no more answers."""
        for writer in self._writers:
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        self.connections += 1
        if self.is_refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            first = await reader.readexactly(len(SSL_REQUEST))
            if first == SSL_REQUEST:
                writer.write(b"N" if self.tls is None else b"S")
                await writer.drain()
                if self.tls is not None:
                    await writer.start_tls(self.tls)
                first = b""
            theirs, to_server = await asyncio.open_unix_connection(str(self.socket))
            to_server.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, to_server, writer, from_client=True))
                group.create_task(self._pass_on(theirs, writer, to_server, from_client=False))
        self._writers.discard(writer)
        writer.close()

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        from_client: bool,
    ) -> None:
        with suppress(OSError, RuntimeError):  # RuntimeError: close_half was called
            while block := await source.read(BLOCK):
                while self.is_silent:
                    await asyncio.sleep(0.01)
                if self.delay and not from_client:
                    await asyncio.sleep(self.delay)
                if (self.cut_before if from_client else self.drop_answer)(block):
                    break
                sink.write(block)
                await sink.drain()
        for writer in (sink, other):
            writer.transport.abort()


@asynccontextmanager
async def postgres_proxy(socket: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[PostgresProxy]:
    """Run a proxy to the socket of a server while the block runs."""
    proxy = PostgresProxy(socket, tls=tls)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.is_silent = False
        proxy.drop_all()
