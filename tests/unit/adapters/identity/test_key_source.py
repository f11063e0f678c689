"""Checks that key sets are read over HTTP from a real server on the loopback, and from files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.certificates import Authority
from tests.support.json_web_tokens import IssuerServer, SigningKey, issuer, key_set
from yarl import URL

from lessor_server.adapters.identity.key_set import KeySetUnusable, read_key_set
from lessor_server.adapters.identity.key_source import KeySource, KeysUnreadable, is_protected
from lessor_server.domain.access.access_config import JwtIssuer

ONE = SigningKey()


@pytest.fixture(name="source")
async def open_source() -> AsyncIterator[KeySource]:
    """Yield a source, and close it."""
    source = KeySource()
    yield source
    await source.close()


@pytest.fixture(name="server")
async def start_server() -> AsyncIterator[IssuerServer]:
    """Yield a running issuer."""
    async with IssuerServer(ONE) as server:
        yield server


def of(server: IssuerServer, **changes: Any) -> JwtIssuer:
    """Return the issuer of a server, whose keys discovery finds."""
    return issuer(**{"url": server.url, "jwks_url": "", **changes})


async def test_keys_are_read_from_their_url(source: KeySource, server: IssuerServer) -> None:
    assert await source.read_keys(of(server, jwks_url=server.jwks_url)) == key_set(ONE)
    assert server.requests == ["/jwks"]


@pytest.mark.parametrize("path", ["", "/realm", "/realm/"])
async def test_discovery_finds_the_keys(source: KeySource, path: str) -> None:
    """One slash at the end of the issuer does not become two."""
    async with IssuerServer(ONE, path=path) as server:
        assert await source.read_keys(of(server)) == key_set(ONE)
        base = path.removesuffix("/")
        assert server.requests == [f"{base}/.well-known/openid-configuration", f"{base}/jwks"]


async def test_the_issuer_of_the_document_must_be_the_files(source: KeySource, server: IssuerServer) -> None:
    """A slash at the end counts."""
    with pytest.raises(KeysUnreadable, match="names the issuer"):
        await source.read_keys(of(server, url=f"{server.url}/"))
    server.discovery = {"issuer": "https://evil.example"}
    with pytest.raises(KeysUnreadable, match=r"evil\.example"):
        await source.read_keys(of(server))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://keys.example/jwks", "not an https URL"),
        ("file:///etc/passwd", "not an https URL"),
        ("//127.0.0.1/jwks", "not an https URL"),
        ("http://127.0.0.1@evil.example/jwks", "not an https URL"),
        ("http://[", "ValueError|not an https URL"),
        (None, "no jwks_uri"),
        (["x"], "no jwks_uri"),
    ],
)
async def test_discovery_leads_to_https_or_the_loopback_only(
    source: KeySource, server: IssuerServer, uri: object, said: str
) -> None:
    server.discovery = {"jwks_uri": uri}
    with pytest.raises(KeysUnreadable, match=said):
        await source.read_keys(of(server))
    assert len(server.requests) == 1


async def test_a_redirect_is_not_followed(source: KeySource, server: IssuerServer) -> None:
    server.location = server.jwks_url.replace("/jwks", "/.well-known/openid-configuration")
    with pytest.raises(KeysUnreadable, match="status 302"):
        await source.read_keys(of(server, jwks_url=server.jwks_url))
    assert server.requests == ["/jwks"]


@pytest.mark.parametrize("status", [204, 206, 304, 404, 500])
async def test_only_status_200_is_an_answer(source: KeySource, server: IssuerServer, status: int) -> None:
    server.status, server.body = status, b"" if status in {204, 304} else None
    with pytest.raises(KeysUnreadable, match=f"status {status}"):
        await source.read_keys(of(server, jwks_url=server.jwks_url))


async def test_a_huge_answer_is_cut_off(source: KeySource, server: IssuerServer) -> None:
    server.body = b"{" + b" " * (1 << 20)
    with pytest.raises(KeysUnreadable, match="larger than 1048576"):
        await source.read_keys(of(server, jwks_url=server.jwks_url))


async def test_a_compressed_answer_is_refused(source: KeySource, server: IssuerServer) -> None:
    """A small one could become huge."""
    server.body, server.headers = gzip.compress(b" " * (1 << 24)), {"Content-Encoding": "gzip"}
    with pytest.raises(KeysUnreadable, match="compressed"):
        await source.read_keys(of(server, jwks_url=server.jwks_url))


async def test_a_set_of_10000_keys_is_read_and_refused(source: KeySource, server: IssuerServer) -> None:
    server.body = json.dumps({"keys": [{"kty": "oct"}] * 10_000}).encode()
    content = await source.read_keys(of(server, jwks_url=server.jwks_url))
    with pytest.raises(KeySetUnusable, match="10000 keys"):
        read_key_set(content)


async def test_a_slow_answer_is_given_up(server: IssuerServer) -> None:
    source = KeySource(0.05)
    server.held = asyncio.Event()
    with pytest.raises(KeysUnreadable, match=r"within 0\.05 s"):
        await source.read_keys(of(server))
    await source.close()


async def test_an_issuer_that_is_down_is_silent(source: KeySource, server: IssuerServer) -> None:
    gone = of(server, jwks_url=server.jwks_url.replace("127.0.0.1", "127.0.0.2"))
    with pytest.raises(KeysUnreadable, match=r"can't connect to 127\.0\.0\.2:\d+: ") as refused:
        await source.read_keys(gone)
    assert "ssl:" not in str(refused.value)


async def test_no_proxy_of_the_environment_is_used(
    source: KeySource, server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await source.read_keys(of(server)) == key_set(ONE)


async def test_the_ca_file_of_an_issuer_is_its_only_authority(source: KeySource, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.sign("issuer")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    app = web.Application()
    app.router.add_get("/jwks", _answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    own = issuer(jwks_url=f"https://127.0.0.1:{runner.addresses[0][1]}/jwks", ca_file=str(authority.ca))
    try:
        assert await source.read_keys(own) == key_set(ONE)
        for ca_file in ("", str(other.ca)):
            with pytest.raises(KeysUnreadable, match="certificate verify failed") as refused:
                await source.read_keys(replace(own, ca_file=ca_file))
            assert "SSLContext" not in str(refused.value)
        with pytest.raises(KeysUnreadable, match="FileNotFoundError"):
            await source.read_keys(replace(own, ca_file=str(tmp_path / "none.pem")))
    finally:
        await runner.cleanup()


async def _answer(_: web.Request) -> web.Response:
    return web.Response(body=key_set(ONE), content_type="text/html")


async def test_keys_are_read_from_a_file(source: KeySource, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    local = issuer(jwks_url="", jwks_file=str(file))
    with pytest.raises(KeysUnreadable, match="FileNotFoundError"):
        await source.read_keys(local)
    file.write_bytes(key_set(ONE))
    assert await source.read_keys(local) == key_set(ONE)
    file.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(KeysUnreadable, match="larger"):
        await source.read_keys(local)


async def test_a_pipe_is_not_waited_for(source: KeySource, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeysUnreadable, match="not a regular file"):
        await source.read_keys(issuer(jwks_url="", jwks_file=str(tmp_path / "pipe")))


@pytest.mark.parametrize(
    ("url", "protected"),
    [
        ("https://issuer.example/jwks", True),
        ("https://user:pass@issuer.example/jwks", False),
        ("http://localhost:8080/jwks", True),
        ("http://127.9.9.9/jwks", True),
        ("http://[::1]/jwks", True),
        ("http://[::ffff:127.0.0.1]/jwks", False),
        ("http://localhost.evil.example/jwks", False),
        ("http://127.0.0.1.evil.example/jwks", False),
        ("http://0.0.0.0/jwks", False),
        ("http://10.0.0.1/jwks", False),
        ("http://issuer.example/jwks", False),
        ("ftp://localhost/jwks", False),
        ("unix:///run/jwks", False),
        ("", False),
    ],
)
def test_a_url_is_https_or_on_the_loopback(url: str, protected: bool) -> None:
    assert is_protected(URL(url)) is protected
