"""Reads the key sets of issuers: from their URL, from the one that discovery finds, or from a file.

Source: OpenID Connect Discovery 1.0, section 4.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from lessor_server.adapters.file_reads import MAX_BYTES, FileReads, ReadTimedOut, read_bounded
from lessor_server.adapters.identity.strict_json import Undecodable, read_object
from lessor_server.domain.access.access_config import JwtIssuer
from lessor_server.domain.errors.base import shown

FETCH_SECONDS: Final = 5.0
"""The timeout of reading a key set, discovery included."""
DISCOVERY: Final = "/.well-known/openid-configuration"

_CHUNK: Final = 1 << 16


class KeysUnreadable(Exception):
    """The keys of an issuer can't be read; the message says why, for the operator."""


class KeySource:
    """Reads key sets over HTTP and from files, without proxies, redirects, cookies and compression."""

    def __init__(self, seconds: float = FETCH_SECONDS) -> None:
        """Give up after ``seconds``; the HTTP session is created when it is needed."""
        self._seconds = seconds
        self._reads = FileReads(seconds)
        self._session: aiohttp.ClientSession | None = None

    async def read_keys(self, issuer: JwtIssuer) -> bytes:
        """Return the JWKS document of an issuer; raises ``KeysUnreadable``."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read_keys(issuer)
        except (TimeoutError, ReadTimedOut):
            raise KeysUnreadable(f"there is no answer within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KeysUnreadable(_problem_of(error)) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _read_keys(self, issuer: JwtIssuer) -> bytes:
        if issuer.jwks_file:
            path = Path(issuer.jwks_file)
            return await self._reads.run(f"keys of {issuer.name}", lambda: read_bounded(path))
        context = await self._context(issuer)
        url = issuer.jwks_url or await self._discover(issuer, context)
        return await self._get(url, context)

    async def _context(self, issuer: JwtIssuer) -> ssl.SSLContext:
        """Return the TLS settings of an issuer: its own ``ca_file`` is the only authority, if it has one."""

        def load() -> ssl.SSLContext:
            if not issuer.ca_file:
                return ssl.create_default_context()
            return ssl.create_default_context(cadata=read_bounded(Path(issuer.ca_file)).decode("ascii"))

        return await self._reads.run(f"authority of {issuer.name}", load)

    async def _discover(self, issuer: JwtIssuer, context: ssl.SSLContext) -> str:
        content = await self._get(issuer.url.removesuffix("/") + DISCOVERY, context)
        try:
            document = read_object(content)
        except Undecodable as error:
            raise KeysUnreadable(f"its discovery document is malformed: {error}") from None
        if document.get("issuer") != issuer.url:
            named = shown(str(document.get("issuer")))
            raise KeysUnreadable(f"its discovery document names the issuer {named}, not {shown(issuer.url)}")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise KeysUnreadable("its discovery document has no jwks_uri")
        return url

    async def _get(self, text: str, context: ssl.SSLContext) -> bytes:
        """Return the body of a URL, which the session gets as the same parsed value that is checked here."""
        url = URL(text)
        if not is_protected(url):
            raise KeysUnreadable(f"{shown(text)} is not an https URL; http is accepted on the loopback only")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                trust_env=False,
                auto_decompress=False,
            )
        async with self._session.get(url, allow_redirects=False, ssl=context) as response:
            if response.status != 200:
                raise KeysUnreadable(f"{shown(text)} answered with status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise KeysUnreadable(f"{shown(text)} answered with compressed content")
            content = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise KeysUnreadable(f"the answer of {shown(text)} is larger than {MAX_BYTES} bytes")
            return bytes(content)


def _problem_of(error: Exception) -> str:
    """Return what failed; aiohttp's own text of a failed connection shows objects of Python."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause: object = error.certificate_error
        case aiohttp.ClientConnectorError():
            cause = error.os_error.strerror or error.os_error
        case _:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return f"can't connect to {error.host}:{error.port}: {str(cause)[:200]}"


def is_protected(url: URL) -> bool:
    """Return whether a URL is https, or http to this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    host = url.host
    if not host or url.user is not None or url.password is not None:
        return False
    if url.scheme == "https":
        return True
    return url.scheme == "http" and (host == "localhost" or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback if address.version == 4 else address == ipaddress.IPv6Address("::1")
