"""Checks that the HTTP edge has gRPC's certificates, and uses new files at the next handshake."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.web import BaseRequest, StreamResponse

from lessor_server.adapters.tls import Certificates
from lessor_server.http_edge.answers import json_response
from lessor_server.http_edge.edge import EdgeConfig, HttpEdge
from lessor_server.http_edge.exchange import credential_of
from lessor_server.settings.parsers import Address
from tests.support.certificates import Authority, KeyPair

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Witness:
    """Keeps the certificates of each caller."""

    def __init__(self) -> None:
        self.certificates: list[bytes] = []

    def owns(self, _: str) -> bool:
        return True

    async def answer(self, request: BaseRequest) -> StreamResponse:
        self.certificates.append(credential_of(request).certificates)
        return json_response(200, {})


@asynccontextmanager
async def serving(
    certificates: Certificates, *, client_auth: bool = True, max_connections: int = 100
) -> AsyncIterator[tuple[int, Witness]]:
    witness, context = Witness(), certificates.http_context(client_auth=client_auth)
    config = EdgeConfig(Address("127.0.0.1", 0), tls=context, max_connections=max_connections)
    async with asyncio.timeout(30), HttpEdge(config, lambda *_: "") as edge:
        url = await edge.serve([witness])
        assert url.startswith("https://")
        yield int(url.rpartition(":")[2]), witness


async def ask(port: int, ca: Path, client: KeyPair | None = None) -> tuple[bytes, bytes]:
    """Return an answer, and the server's certificate (DER)."""
    context = ssl.create_default_context(cafile=ca)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        writer.write(GET)
        answer = await reader.read()
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return answer, shown
    finally:
        writer.transport.abort()


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


def replace(file: KeyPair, by: KeyPair) -> None:
    file.cert.write_bytes(by.cert.read_bytes())
    file.key.write_bytes(by.key.read_bytes())


async def test_a_new_certificate_is_used_at_the_next_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, other = authority.sign("server"), authority.sign("other")
    first, second = der(server.cert), der(other.cert)
    certificates = Certificates(server.cert, server.key, None)
    async with serving(certificates) as (port, witness):
        answer, shown = await ask(port, authority.ca)
        assert (answer[:15], shown) == (b"HTTP/1.1 200 OK", first)
        assert witness.certificates == [b""]
        replace(server, other)
        assert await certificates.reread()
        assert (await ask(port, authority.ca))[1] == second


async def is_refused(port: int, ca: Path, client: KeyPair | None) -> bool:
    """Return whether a handshake fails; in TLS 1.3 the client sees that only when it reads."""
    try:
        return (await ask(port, ca, client))[0] == b""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_a_caller_needs_a_certificate_of_the_authority_and_is_known_by_it(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server, client = authority.sign("server"), authority.sign("client")
    certificates = Certificates(server.cert, server.key, authority.ca)
    async with serving(certificates) as (port, witness):
        assert await is_refused(port, authority.ca, None)
        assert await is_refused(port, authority.ca, stranger.sign("client"))
        await ask(port, authority.ca, client)
        (seen,) = witness.certificates
        assert ssl.PEM_cert_to_DER_cert(seen.decode()) == der(client.cert)


async def test_a_new_authority_is_used_at_the_next_handshake(tmp_path: Path) -> None:
    authority, next_one = Authority(tmp_path), Authority(tmp_path, "next")
    server, old, new = authority.sign("server"), authority.sign("client"), next_one.sign("client")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.ca.read_bytes())
    certificates = Certificates(server.cert, server.key, clients)
    async with serving(certificates) as (port, witness):
        await ask(port, authority.ca, old)
        clients.write_bytes(next_one.ca.read_bytes())
        assert await certificates.reread()
        await ask(port, authority.ca, new)
        assert await is_refused(port, authority.ca, old)
        assert len(witness.certificates) == 2


async def test_a_listener_may_ask_for_no_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("server")
    certificates = Certificates(server.cert, server.key, authority.ca)
    async with serving(certificates, client_auth=False) as (port, witness):
        assert (await ask(port, authority.ca))[0].startswith(b"HTTP/1.1 200 ")
        assert witness.certificates == [b""]


async def test_a_handshake_that_does_not_come_closes_its_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("server")
    context = Certificates(server.cert, server.key, None).http_context(client_auth=True)
    config = EdgeConfig(Address("127.0.0.1", 0), tls=context, head_seconds=0.05)
    async with asyncio.timeout(30), HttpEdge(config, lambda *_: "") as edge:
        url = await edge.serve([])
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        assert await reader.read() == b""
        writer.transport.abort()


async def test_handshakes_that_never_end_make_room_for_others(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("server")
    certificates = Certificates(server.cert, server.key, None)
    async with serving(certificates, client_auth=False, max_connections=4) as (port, _):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        answer, _ = await ask(port, authority.ca)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.transport.abort()
