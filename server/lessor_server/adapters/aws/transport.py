"""How a request travels: straight to its host over verified TLS, once, with a bounded answer.

aiobotocore's own session follows redirects with the whole request, the web identity token and the session
token included. It compares no host name with the certificate (its context is made for urllib3, which does
that itself), and behind a proxy it verifies no certificate at all. It also reports a connection that was
reset after the request as one that was never made.
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
"""More than a page of 1,000 users has whose names, paths and ARNs are as long as AWS allows."""


class NotAnAnswer(sdk.HTTPClientError):  # type: ignore[misc]  # botocore ships no types
    """Something came back that is not an answer of AWS; ``sent`` says whether the request had been sent."""

    fmt = "HTTP {status}: {problem}"

    def __init__(self, status: int, problem: str, *, sent: bool = True, url: str = "") -> None:
        """Say with which HTTP status it came, what is wrong with it, and maybe which ``url`` was asked."""
        super().__init__(status=status, problem=problem)
        self.sent = sent
        parts = urlsplit(url)
        # Neither a path nor a user: these may be secrets.
        self.origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if url else ""


class Transport(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """Sends the requests of one client, and follows no redirect."""

    async def send(self, request: Any) -> AioAWSResponse:
        """Send one request and return its answer, read whole.

        Raises:
            EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError: There was no
                connection, so nothing was sent.
            NotAnAnswer: A redirect, a refusal of the proxy, or a body that is cut or too long.
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
        # Raised while connecting, and then alone: a reset after that is a ClientOSError.
        except aiohttp.ClientConnectorError as error:
            raise sdk.EndpointConnectionError(endpoint_url=url, error=error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise sdk.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except TimeoutError as error:
            raise sdk.ReadTimeoutError(endpoint_url=url, error=error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise sdk.ConnectionClosedError(endpoint_url=url, request=request, error=error) from error

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        """Return the session for what goes through a proxy, or through none; it keeps no cookies."""
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
        """Return what connects: certificates and host names are verified, through a proxy as well."""
        context = _tls_context(get_cert_path(self._verify or True))
        return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    def _proxy_of(self, url: str) -> str | None:
        """Return the proxy to go through. An address of this machine or link is never behind one.

        Otherwise what must not leave the machine would be sent to the proxy, readable. Go's net/http makes
        the same exception for loopback (ProxyFromEnvironment).
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
    """Return what verifies certificates by the authorities in a file; reading them takes milliseconds."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@dataclass(frozen=True, slots=True)
class _Body:
    """A body that is read already, in the place of one that ``AioAWSResponse`` would read."""

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
    """Read an answer whole, or raise ``NotAnAnswer`` where it is a redirect, too long, or cut."""
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
