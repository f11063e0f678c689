"""A server that is not AWS: it answers with bytes of the test's choice and records all requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RESET = b""
"""An empty answer: the connection is reset after the request was read."""


def page(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Write an answer; ``length`` sets a Content-Length that differs from the body's."""
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join((*lines, *headers, "Connection: close", "", "")).encode() + body


@dataclass
class Stranger:
    """One server: its answer, its address, and the requests that it has read."""

    answer: bytes = page(200, b"<html/>")
    port: int = 0
    received: list[bytes] = field(default_factory=list)
    tunnel: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it; with ``tunnel``, first accept a CONNECT and act as its target."""
        try:
            head = await self._read(reader)
            if self.tunnel and head.startswith(b"CONNECT"):
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                await writer.start_tls(self.tunnel)
                await self._read(reader)
            if self.answer == RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        _, _, after = head.lower().partition(b"content-length:")
        body = await reader.readexactly(int(after.split(b"\r\n")[0])) if after else b""
        self.received.append(head + body)
        return head


@asynccontextmanager
async def stranger(
    answer: bytes = page(200, b"<html/>"), tls: ssl.SSLContext | None = None
) -> AsyncIterator[Stranger]:
    """Run one on loopback for the duration of the block."""
    one = Stranger(answer)
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one


def certified(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for these host names; return it, as its own authority, and what serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    cert = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{names[0]}.crt", folder / f"{names[0]}.key"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8, plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_file.write_bytes(key.private_bytes(pem, pkcs8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return cert_file, context
