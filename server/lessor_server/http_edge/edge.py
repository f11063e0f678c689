"""The listener of the HTTP edge, and the way of a request to the face that serves its path."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol, Self

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.web import BaseRequest, StreamResponse

from lessor_server.domain.errors.base import LessorError
from lessor_server.http_edge.answers import error_response
from lessor_server.http_edge.connections import HEAD_SECONDS, CallerConnection, Connections, Report
from lessor_server.http_edge.exchange import peer_from
from lessor_server.services.anonymous import AnonymousCalls
from lessor_server.settings.parsers import Address

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound by this
"""Where a client of this machine reaches a server that listens on every address."""
BACKLOG: Final = 1024
ACCEPT_PAUSE_SECONDS: Final = 0.1
MIN_GRACE_SECONDS: Final = 0.1


_WRONG_HOST: Final = "the Host of the request is not a name of this server; add it to the setting http.hosts"


class HttpPortTaken(LessorError):
    """The address for HTTP is in use, or not this machine's."""

    reason = "CANNOT_LISTEN_FOR_HTTP"
    fix = "stop the process that listens there, or set another address with LESSOR_HTTP_LISTEN"


class Face(Protocol):
    """Serves the paths that it owns."""

    def owns(self, path: str) -> bool:
        """Return whether it serves this path."""
        ...

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Return the answer to a request."""
        ...


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Where the edge listens (None: nowhere), and within which limits.

    ``hosts`` are the names that are answered beside the address and ``localhost``. ``tls`` is None for HTTP
    in the clear. ``shares_port`` lets several processes listen on the same port.
    """

    address: Address | None
    hosts: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    max_connections: int = 1_000
    head_seconds: float = HEAD_SECONDS
    shares_port: bool = False


class HttpEdge:
    """The edge: closed, then open and refusing, then serving its faces; a context manager that stops it."""

    def __init__(self, config: EdgeConfig, report: Report) -> None:
        """Listen by ``config``; unexpected exceptions go to ``report``."""
        self._config = config
        self._report = report
        self._faces: Sequence[Face] | None = None
        self._listener: socket.socket | None = None
        self._connections: Connections | None = None
        self._opening: dict[asyncio.Task[None], None] = {}
        """The connections whose TLS handshake goes on, the oldest first."""
        self._anonymous = AnonymousCalls()
        self._group = asyncio.TaskGroup()
        self._accepting: asyncio.Task[None] | None = None
        self.url = ""
        """The URL of the edge, empty while it is closed."""

    async def __aenter__(self) -> Self:
        """Begin closed."""
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *why: object) -> None:
        """Stop immediately."""
        await self.stop(0)
        await self._group.__aexit__(None, None, None)

    async def open(self) -> None:
        """Listen, unless there is no address or it listens already.

        Raises:
            HttpPortTaken: The address can't be used.
        """
        if self._config.address is None or self._listener is not None:
            return
        self._connections = Connections(self._handle, self._report, self._config.head_seconds)
        self._listener = _listen(self._config.address, shares_port=self._config.shares_port)
        self.url = self._url(self._listener.getsockname()[1])
        self._accepting = self._group.create_task(self._accept(self._listener, self._connections))

    async def serve(self, faces: Iterable[Face]) -> str:
        """Serve by ``faces`` from now on; return the URL, empty if there is no address."""
        self._faces = tuple(faces)
        await self.open()
        return self.url

    async def stop(self, grace: float) -> None:
        """Close the listener; requests have ``grace`` seconds to end."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
        if self._connections is not None:
            self._connections.pre_shutdown()
            # aiohttp takes 0 for no limit.
            await self._connections.shutdown(max(grace, MIN_GRACE_SECONDS))

    def _url(self, port: int) -> str:
        assert self._config.address is not None
        host = self._config.hosts[0] if self._config.hosts else self._config.address.host
        host = _LOOPBACK.get(host, host)
        return f"{'https' if self._config.tls else 'http'}://{Address(host, port)}"

    async def _accept(self, listener: socket.socket, connections: Connections) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # too many open files, or a caller that has gone
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            is_full = len(self._opening) + len(connections.connections) >= self._config.max_connections
            if is_full and not self._make_room(connections):
                connection.close()
                continue
            task = self._group.create_task(self._connect(connection, connections))
            self._opening[task] = None
            task.add_done_callback(lambda done: self._opening.pop(done, None))
            await asyncio.sleep(0)  # it has begun, so that its cancellation closes the connection

    def _make_room(self, connections: Connections) -> bool:
        """Close what can be spared for a new connection; return whether there was something.

        Handshakes that go on are those of strangers too; they may take half of the room before they go first.
        """
        if len(self._opening) <= self._config.max_connections // 2 and connections.make_room(of_known=False):
            return True
        if self._opening:
            oldest = next(iter(self._opening))
            del self._opening[oldest]
            oldest.cancel()
            return True
        return connections.make_room(of_known=True)

    async def _connect(self, connection: socket.socket, connections: Connections) -> None:
        tls = self._config.tls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                connections,
                connection,
                ssl=tls,
                ssl_handshake_timeout=self._config.head_seconds if tls else None,
            )
        except OSError:  # no handshake: a scanner, or a caller that does not trust the certificate
            connection.close()
        except Exception as error:  # noqa: BLE001 - it ends one connection, and nothing else
            self._report("http connection", error)
            connection.close()

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        """Give a request to the first face that owns its path.

        What is refused here, and all before a caller is identified on a connection, waits for its turn.
        """
        refusal, connection = self._refuse(request), request.protocol
        if refusal is not None or not (isinstance(connection, CallerConnection) and connection.is_known):
            await self._anonymous.wait_turn(peer_from(request).connection)
        if refusal is not None:
            return refusal
        for face in self._faces or ():
            if face.owns(request.path):
                return await face.answer(request)
        return error_response(HTTPStatus.NOT_FOUND, "there is nothing at this path; check the URL")

    def _refuse(self, request: BaseRequest) -> StreamResponse | None:
        """Return the answer to a request that no face may see."""
        if self._faces is None:
            return error_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the data keys are not decrypted yet; retry later",
                retry_in=1.0,
            )
        if request.version not in (HttpVersion10, HttpVersion11):
            refused = error_response(HTTPStatus.BAD_REQUEST, "only HTTP/1.0 and HTTP/1.1 are served")
            refused.force_close()
            return refused
        if not self._knows_host(request.headers.getall("Host", ())):
            return error_response(HTTPStatus.MISDIRECTED_REQUEST, _WRONG_HOST)
        return None

    def _knows_host(self, given: Sequence[str]) -> bool:
        """Return whether the one Host is ours: a page of another site may have any name for this address."""
        if len(given) != 1 or self._config.address is None:
            return False
        host = _host_of(given[0])
        if host in ("localhost", self._config.address.host.lower(), *self._config.hosts):
            return True
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            return False
        return self._config.address.host in _LOOPBACK or (self._config.address.is_local and found.is_loopback)


def _host_of(given: str) -> str:
    """Return the name or address of a Host header, without its port and brackets, in lower case."""
    host = given.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _listen(address: Address, *, shares_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG, reuse_port=shares_port
        )
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number else str(error)
        raise HttpPortTaken(f"cannot listen for HTTP on {address}: {why}") from None
    listener.setblocking(False)
    return listener
