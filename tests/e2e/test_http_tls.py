"""Checks that the HTTP edge of a real server has gRPC's certificates, and knows callers by theirs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from cryptography import x509

from tests.support.certificates import Authority
from tests.support.clients import until
from tests.support.server_process import ServerProcess, serving

pytestmark = pytest.mark.e2e

ACCESS = """
[[policies]]
name = "reader"
rules = [{path = "aws/creds/app", capabilities = ["read"]}]

[[identities]]
name = "host/{host}"
policies = ["reader"]
dns_name = "{host}.build.example.org"
"""


async def identity_of(server: ServerProcess, context: ssl.SSLContext, token: str = "") -> str:
    """Return how the server knows a caller."""
    headers = {"X-Vault-Token": token} if token else {}
    async with (
        aiohttp.ClientSession(server.http_url, headers=headers) as session,
        session.get("/v1/auth/token/lookup-self", ssl=context) as answer,
    ):
        assert answer.status == 200
        return str((await answer.json())["data"]["display_name"])


async def test_a_caller_is_known_by_its_certificate_or_its_token_and_a_new_one_is_shown(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    own, other = authority.sign("server"), authority.sign("other")
    client = authority.sign("client", names=[x509.DNSName("ci.build.example.org")])
    access = tmp_path / "access.toml"
    access.write_text(ACCESS)
    settings = {
        "LESSOR_HTTP_LISTEN": "127.0.0.1:0",
        "LESSOR_TLS_CERT_FILE": str(own.cert),
        "LESSOR_TLS_KEY_FILE": str(own.key),
        "LESSOR_TLS_CLIENT_CA_FILE": str(authority.ca),
        "LESSOR_ACCESS_FILE": str(access),
    }
    context = ssl.create_default_context(cafile=authority.ca)
    async with serving(tmp_path, settings) as server:
        assert server.http_url.startswith("https://")
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await identity_of(server, context, server.token)
        context.load_cert_chain(client.cert, client.key)
        assert await identity_of(server, context) == "host/ci"
        assert await identity_of(server, context, server.token) == "root"
        own.cert.write_bytes(other.cert.read_bytes())
        own.key.write_bytes(other.key.read_bytes())
        server.hang_up()

        async def shown() -> str:
            place = urlsplit(server.http_url)
            _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=context)
            tls = writer.get_extra_info("ssl_object")
            writer.transport.abort()
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))

        await until(shown, lambda seen: seen.strip() == other.cert.read_text().strip())
