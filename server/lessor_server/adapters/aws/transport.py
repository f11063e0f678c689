"""Sends a request once, directly to its host over verified TLS, and reads a bounded answer.

aiobotocore's own session follows redirects with the whole request, including web identity and session tokens.
It does not compare host names with certificates (urllib3, for which its context is made, does that itself),
and behind a proxy it verifies no certificate. It also reports a connection that was reset after the request
as one that was never established.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions as sdk
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from botocore.httpsession import get_cert_path, mask_proxy_url
from multidict import CIMultiDict
from yarl import URL

MAX_ANSWER_BYTES: Final = 2 << 20
"""More than a page of 1,000 users with the longest names, paths and ARNs."""


class NotAnAnswer(sdk.HTTPClientError):  # type: ignore[misc]  # botocore ships no types
    """The response is not an answer of AWS; ``sent`` says whether the request had been sent."""

    fmt = "HTTP {status}: {problem}"

    def __init__(self, status: int, problem: str, *, sent: bool = True, url: str = "") -> None:
        """Keep the HTTP status, the problem, and optionally the requested ``url``."""
        super().__init__(status=status, problem=problem)
        self.sent = sent
        parts = urlsplit(url)
        # Without path and user, which may be secrets.
        self.origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if url else ""


class Transport(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """Sends the requests of one client; does not follow redirects."""

    async def send(self, request: Any) -> AioAWSResponse:
        """Send one request and return its answer, read whole.

        Raises:
            EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError: There was no
                connection, so nothing was sent.
            NotAnAnswer: A redirect, a refusal of the proxy, or a body that is incomplete or too long.
            HTTPClientError: Any other failure; the request may have been sent.
        """
        url: str = request.url
        proxy = self._proxy_of(url)
        try:
            session = await self._get_session(proxy)
        except OSError as error:  # the file of authorities
            raise sdk.SSLError(endpoint_url=url, error=error) from error
        try:
            sending = session.request(
                request.method,
                URL(url, encoded=True),
                headers=_headers_of(request),
                data=request.body,
                proxy=proxy,
                allow_redirects=False,
            )
            async with sending as response:
                return await _read(response, url)
        except aiohttp.ClientHttpProxyError as error:
            raise NotAnAnswer(error.status, "the proxy refused to connect", sent=False) from error
        except aiohttp.ClientProxyConnectionError as error:
            raise sdk.ProxyConnectionError(proxy_url=mask_proxy_url(proxy), error=error) from error
        except aiohttp.ClientSSLError as error:
            raise sdk.SSLError(endpoint_url=url, error=error) from error
        # Raised only while connecting: a later reset is a ClientOSError.
        except aiohttp.ClientConnectorError as error:
            raise sdk.EndpointConnectionError(endpoint_url=url, error=error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise sdk.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except TimeoutError as error:
            raise sdk.ReadTimeoutError(endpoint_url=url, error=error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise sdk.ConnectionClosedError(endpoint_url=url, request=request, error=error) from error

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        """Return the session with or without a proxy; it keeps no cookies."""
        sessions: dict[str | None, aiohttp.ClientSession] = self._sessions
        if proxy_url not in sessions:
            session = aiohttp.ClientSession(
                connector=self._create_connector(proxy_url),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers={"CONTENT-TYPE"},
                auto_decompress=False,
            )
            sessions[proxy_url] = session
            await self._exit_stack.enter_async_context(session)
        return sessions[proxy_url]

    def _create_connector(self, _: str | None) -> aiohttp.TCPConnector:
        """Return a connector that verifies certificates and host names, also through a proxy."""
        context = _tls_context(get_cert_path(self._verify or True))
        return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    def _proxy_of(self, url: str) -> str | None:
        """Return the proxy for a URL, which is never used for an address of this machine or link.

        Otherwise requests that must not leave the machine would go to the proxy, unencrypted. Go's net/http
        makes the same exception for loopback (ProxyFromEnvironment).
        """
        if is_near(urlsplit(url).hostname or ""):
            return None
        proxy: str | None = self._proxy_config.proxy_url_for(url)
        return proxy


def is_near(host: str) -> bool:
    """Return whether a host is an address of this machine or link, such as the metadata service."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local


@lru_cache(maxsize=8)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Return a TLS context with the authorities in a file, which take milliseconds to read."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@dataclass(frozen=True, slots=True)
class _Body:
    """A body that is read already, for ``AioAWSResponse``."""

    content: bytes

    async def read(self) -> bytes:
        """Return it."""
        return self.content


def _headers_of(request: Any) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(
        (name, value.decode() if isinstance(value, bytes) else value)
        for name, value in request.headers.items()
    )
    headers["Accept-Encoding"] = "identity"
    return headers


async def _read(response: aiohttp.ClientResponse, url: str) -> AioAWSResponse:
    """Read a whole answer, or raise ``NotAnAnswer`` if it is a redirect, too long, or incomplete."""
    if 300 <= response.status < 400:
        raise NotAnAnswer(response.status, "a redirect, which is not followed", url=url)
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                response.close()
                problem = f"the body is longer than {MAX_ANSWER_BYTES} bytes"
                raise NotAnAnswer(response.status, problem, url=url)
    except aiohttp.ClientPayloadError as error:
        raise NotAnAnswer(response.status, "the body is cut", url=url) from error
    headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in response.raw_headers}
    return AioAWSResponse(url, response.status, headers, _Body(bytes(body)))
