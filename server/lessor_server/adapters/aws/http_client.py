"""Sends each request once, directly to its host over verified TLS, and keeps connections for the next.

It follows no redirect, keeps no cookie, decompresses nothing and never sends a request again. An error says
whether the request may have been sent. Connections carry no identity: each request is signed for itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Final, cast
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs
import botocore.exceptions as sdk
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from lessor_server.adapters.aws.http_connection import Connection, HttpAnswer, NotAnAnswer, NotSent

CONNECT_SECONDS, READ_SECONDS = 2, 5
MAX_IDLE: Final = 128
"""The connections to one origin that are kept for later requests."""
MAX_ORIGINS: Final = 256
"""The origins whose connections are kept: roots name their endpoints, and not all of those need exist."""
IDLE_SECONDS: Final = 12.0
"""How long one is kept: less than AWS keeps it, as aiobotocore's default."""
_ADDRESS_DELAY_SECONDS: Final = 0.25
"""The head start of one address before the next is tried too (RFC 8305, 8)."""
_NEAR_OF_AWS: Final = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd00:ec2::23")))
"""The metadata service, and the agent of EKS Pod Identity, of which IPv6 has no link-local addresses."""
_PORTS: Final = {"http": 80, "https": 443}
_UNSAFE: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class SplitUrl:
    """The parts of a URL.

    Attributes:
        scheme: http or https.
        name: The host's name or address.
        port: The port.
        host: The value of the header Host, without a default port.
        origin: The URL without user, path and query, which may be secrets.
        target: The path and query.
    """

    scheme: str
    name: str
    port: int
    host: str
    origin: str
    target: str


@lru_cache(maxsize=256)
def split_url(url: str) -> SplitUrl:
    """Split a URL, or raise ``NotSent`` if it is not one of HTTP."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:  # its text may have the URL
        raise NotSent(problem="the URL is not one of HTTP") from None
    if not name or not port or parts.scheme not in _PORTS or _UNSAFE.search(url):
        raise NotSent(problem="the URL is not one of HTTP")
    host = f"[{name}]" if ":" in name else name
    if port != _PORTS[parts.scheme]:
        host += f":{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return SplitUrl(parts.scheme, name, port, host, f"{parts.scheme}://{host}", target)


@dataclass(frozen=True, slots=True)
class _Proxy:
    """A proxy and the headers that it needs; errors name its origin only, as its URL may have a password."""

    place: SplitUrl
    headers: dict[str, str] = field(repr=False)

    @staticmethod
    def of(url: str) -> _Proxy:
        """Return the proxy with a URL, or raise ``NotSent`` if it is not one of HTTP."""
        try:
            place = split_url(url)
        except NotSent:
            place = None
        if place is None or place.target.startswith("//"):  # so botocore writes another scheme's
            raise NotSent(problem="the proxy's URL is not one of HTTP")
        return _Proxy(place, _authorization(url))

    def failed(self, error: Exception) -> Exception:
        """Return the error of a request that did not get through it."""
        return cast("Exception", sdk.ProxyConnectionError(proxy_url=self.place.origin, error=error))


@dataclass(slots=True)
class _Origin:
    """A host, the way to it, and its idle connections, the newest last."""

    place: SplitUrl
    proxy: _Proxy | None
    load_tls: Callable[[], ssl.SSLContext]
    idle: list[Connection] = field(default_factory=list)


class HttpClient:
    """Sends requests; ``close`` closes its idle connections."""

    def __init__(
        self,
        find_ca_file: Callable[[], str],
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        find_proxy: Callable[[str], str] | None = None,
    ) -> None:
        """Trust the authorities in a file; ``find_proxy`` returns a URL's proxy, or nothing."""
        self._find_ca_file = find_ca_file
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._find_proxy = find_proxy or environment_proxy
        self._origins: dict[str, _Origin] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, until: float | None = None
    ) -> HttpAnswer:
        """Send one request and return its answer, read whole, by the loop's instant ``until``.

        Raises:
            EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError: There was no
                connection, so nothing was sent.
            NotAnAnswer: A redirect, a refusal of the proxy, or a body that is incomplete or too long.
            HTTPClientError: Any other failure; the request may have been sent.
            NotSent: The request is not one of HTTP.
        """
        place = split_url(url)
        origin = self._origins.get(place.origin) or self._add_origin(place)
        request = _write_request(method, origin, place, headers, body)
        loop = asyncio.get_running_loop()
        now = loop.time()
        connection = self._take(origin, now)
        if connection is None:
            connection = await self._connect(origin, until)
            now = loop.time()
        limit = now + self._read_seconds
        try:
            answer = await connection.exchange(request, limit if until is None else min(limit, until))
        except BaseException:
            connection.close()
            raise
        self._keep(origin, connection, loop.time())
        if 300 <= answer.status < 400:
            raise NotAnAnswer(answer.status, "a redirect, which is not followed", origin=place.origin)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        for origin in self._origins.values():
            _close_all(origin)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _add_origin(self, place: SplitUrl) -> _Origin:
        """Return a new origin, with the proxy that the environment names for it."""
        url = "" if is_near(place.name) else self._find_proxy(f"{place.origin}/")
        load_tls = cache(partial(self._load_tls, place.origin))  # the SDK reads its files to find it
        origin = _Origin(place, _Proxy.of(url) if url else None, load_tls)
        while len(self._origins) >= MAX_ORIGINS:
            _close_all(self._origins.pop(next(iter(self._origins))))
        self._origins[place.origin] = origin
        return origin

    def _load_tls(self, origin: str) -> ssl.SSLContext:
        try:
            return _tls_context(self._find_ca_file())
        except (OSError, sdk.BotoCoreError) as error:
            raise sdk.SSLError(endpoint_url=origin, error=error) from error

    # --- connections --------------------------------------------------------------------------------------

    def _take(self, origin: _Origin, now: float) -> Connection | None:
        """Return the connection that was used last, if one is still open and fresh."""
        while origin.idle:
            connection = origin.idle.pop()
            if connection.idle_since > now - IDLE_SECONDS and connection.is_quiet:
                return connection
            connection.close()
        return None

    def _keep(self, origin: _Origin, connection: Connection, now: float) -> None:
        is_known = self._origins.get(origin.place.origin) is origin
        if not connection.is_reusable or not is_known or len(origin.idle) >= MAX_IDLE:
            connection.close()
            return
        connection.idle_since = now
        origin.idle.append(connection)
        if self._sweeper is None:
            self._sweep()

    def _sweep(self) -> None:
        """Close the connections that are idle for long, and do so again while there are others."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for origin in self._origins.values():
            kept, origin.idle = origin.idle, []
            for connection in kept:
                if connection.is_open and connection.idle_since > oldest:
                    origin.idle.append(connection)
                else:
                    connection.close()
        more = any(origin.idle for origin in self._origins.values())
        self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep) if more else None

    async def _connect(self, origin: _Origin, until: float | None) -> Connection:
        """Open a connection, through the proxy if there is one; a failure means that nothing was sent."""
        url = origin.place.origin
        limit = asyncio.get_running_loop().time() + self._connect_seconds
        limit = limit if until is None else min(limit, until)
        try:
            async with asyncio.timeout_at(limit):
                if origin.proxy is not None:
                    return await _connect_through(origin.proxy, origin, limit)
                return await _open(origin.place, origin.load_tls, url)
        except sdk.BotoCoreError:  # some of these are OSError too
            raise
        except ssl.SSLError as error:
            raise sdk.SSLError(endpoint_url=url, error=error) from error
        except TimeoutError as error:
            raise sdk.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except Exception as error:  # whatever it is, such as a host name that IDNA does not allow
            raise sdk.EndpointConnectionError(endpoint_url=url, error=error) from error


def _close_all(origin: _Origin) -> None:
    """Close the idle connections to an origin."""
    while origin.idle:
        origin.idle.pop().close()


async def _open(place: SplitUrl, load_tls: Callable[[], ssl.SSLContext], origin: str) -> Connection:
    """Connect to a host, over TLS if its URL says so; the errors of ``Connection`` name ``origin``."""
    loop = asyncio.get_running_loop()
    tls = load_tls() if place.scheme == "https" else None
    addresses = await loop.getaddrinfo(place.name, place.port, type=socket.SOCK_STREAM)
    sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_ADDRESS_DELAY_SECONDS)
    try:
        _, connection = await loop.create_connection(
            lambda: Connection(origin, sock),
            sock=sock,
            ssl=tls,
            server_hostname=place.name if tls else None,
        )
    except BaseException:
        sock.close()
        raise
    return connection


async def _connect_through(proxy: _Proxy, origin: _Origin, until: float) -> Connection:
    """Connect to the proxy of an origin; for TLS, open a tunnel through it."""
    place = origin.place
    try:
        connection = await _open(proxy.place, origin.load_tls, place.origin)
    except (TimeoutError, sdk.SSLError):
        raise
    except Exception as error:
        raise proxy.failed(error) from error
    if place.scheme == "http":
        return connection
    authority = place.host if place.port != _PORTS["https"] else f"{place.host}:443"
    request = _write_head(f"CONNECT {authority}", {"Host": authority, **proxy.headers})
    try:
        answer = await connection.exchange(request, until, tunnel=True)
        if answer.status != 200:
            raise NotAnAnswer(answer.status, "the proxy refused to connect", sent=False, origin=place.origin)
        await connection.encrypt(origin.load_tls(), place.name)
    except NotAnAnswer as error:
        connection.close()
        error.sent = False
        raise
    except (sdk.ConnectionClosedError, sdk.ReadTimeoutError) as error:
        connection.close()
        raise proxy.failed(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _write_request(
    method: str, origin: _Origin, place: SplitUrl, headers: Mapping[str, str], body: bytes
) -> bytes:
    """Write a request; one in plain text to a proxy has the whole URL (RFC 9112, 3.2.2)."""
    fields = {"Host": place.host, "Accept-Encoding": "identity", **headers}
    target = place.target
    if origin.proxy is not None and place.scheme == "http":
        target = place.origin + target
        fields |= origin.proxy.headers
    if body or method != "GET":
        fields["Content-Length"] = str(len(body))
    return _write_head(f"{method} {target}", fields) + body


def _write_head(start: str, fields: Mapping[str, str]) -> bytes:
    lines = "\r\n".join(map(": ".join, fields.items()))
    breaks = len(fields) - 1
    if lines.count("\n") != breaks or lines.count("\r") != breaks or "\0" in lines:
        raise NotSent(problem="a header has a line break")
    return f"{start} HTTP/1.1\r\n{lines}\r\n\r\n".encode()


def _authorization(proxy: str) -> dict[str, str]:
    """Return the header that a proxy with a user in its URL needs."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def environment_proxy(url: str) -> str:
    """Return the proxy for a URL as botocore reads it from the environment, or nothing."""
    return ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url) or ""


def is_near(host: str) -> bool:
    """Return whether a host is an address of this machine or link, such as the metadata service.

    No proxy is used for one. Otherwise requests that must not leave the machine would go to the proxy,
    unencrypted. Go's net/http makes the same exception for loopback (ProxyFromEnvironment).
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address in _NEAR_OF_AWS


@lru_cache(maxsize=8)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Return a TLS context with the authorities in a file, which take milliseconds to read."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
