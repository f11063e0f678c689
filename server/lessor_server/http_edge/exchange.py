"""One call over HTTP, as the guard's ``Exchange``."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp.web import BaseRequest
from google.protobuf.message import Message

from lessor_server.domain.access.caller import Credential, Peer
from lessor_server.http_edge.connections import CallerConnection
from lessor_server.services.grpc_handlers import peer_of

CALL_SECONDS: Final = 25.0
"""The time of a call: HTTP callers send no deadline, and some wait no longer than 30 s."""
TOKEN_HEADER: Final = "X-Vault-Token"
_SECRET_HEADERS: Final = frozenset({"x-vault-token", "authorization", "cookie"})

Ask = Callable[[], Awaitable[Message]]
"""Reads a request's body and returns its message; raises ``Invalid``."""
Send = Callable[[Message], Awaitable[None]]
"""Sends one message of a stream; raises ``ConnectionError`` if the caller has disconnected."""


class HttpExchange:
    """One call: ``ask`` is awaited once the caller is known."""

    def __init__(
        self,
        request: BaseRequest,
        ask: Ask,
        *,
        credential: Credential | None = None,
        seconds: float | None = CALL_SECONDS,
        begin: Callable[[], Awaitable[None]] | None = None,
        write: Send | None = None,
    ) -> None:
        """Serve ``request``; the caller presents ``credential``, by default that of the headers.

        ``seconds`` is the time of the call, None for a lasting stream. ``begin`` is awaited when a
        subscription has begun, and ``write`` for each message of a stream.
        """
        self._request = request
        self._ask = ask
        self._credential = credential
        self._begin = begin
        self._write = write
        loop = asyncio.get_running_loop()
        self._until = None if seconds is None else loop.time() + seconds
        self.is_public = False
        """Whether everybody may call the method, without a credential."""
        self.last: Message | None = None
        """The last message of a stream."""
        self.request_id = ""
        """The id of the call's audit records, empty without an audit."""

    def metadata(self) -> Mapping[str, str]:
        """Return the headers, with names in lower case, except those with secrets."""
        headers = {name.lower(): value for name, value in self._request.headers.items()}
        return {name: value for name, value in headers.items() if name not in _SECRET_HEADERS}

    def set_request_id(self, request_id: str) -> None:
        """Keep the id of the call's audit records for the answer."""
        self.request_id = request_id

    @property
    def credential(self) -> Credential:
        """Return what the caller presents."""
        if self._credential is None:
            self._credential = credential_of(self._request)
        return self._credential

    @property
    def seconds(self) -> float | None:
        """Return the seconds left, None for a lasting stream."""
        return None if self._until is None else self._until - asyncio.get_running_loop().time()

    async def read(self) -> bytes | None:
        """Return the message of the call; if its method needs a credential, the caller is known now."""
        connection = self._request.protocol
        if not self.is_public and isinstance(connection, CallerConnection):
            connection.is_known = True
        return (await self._ask()).SerializeToString()

    async def begin(self) -> None:
        """Report that a subscription has begun."""
        if self._begin is not None:
            await self._begin()

    async def write(self, message: Message) -> None:
        """Send one message of a stream, or keep it if it is the last."""
        if self._write is None:
            self.last = message
            return
        try:
            await self._write(message)
        except ConnectionError:
            raise asyncio.CancelledError from None  # as on gRPC: the caller has gone


def credential_of(request: BaseRequest) -> Credential:
    """Return what a request presents in its headers, and the client certificate of its connection.

    The token is in ``X-Vault-Token`` or in ``Authorization``. Both are given to the guard if they differ, and
    it refuses them: a proxy may have checked the other one.
    """
    tokens = [f"Bearer {value}" for value in request.headers.getall(TOKEN_HEADER, ())]
    others = request.headers.getall("Authorization", ())
    given = dict.fromkeys([*tokens, *(_canonical(value) for value in others)])
    return Credential(peer_from(request), tuple(map(as_text, given)), _certificates(request))


def as_text(sent: str) -> str:
    """Return a text that came with the head of a request; bytes that are not UTF-8 become U+FFFD."""
    return sent.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def token_credential(request: BaseRequest, token: str) -> Credential:
    """Return the credential of a caller that presents ``token``, whatever its headers say."""
    return Credential(peer_from(request), (f"Bearer {token}",))


def _canonical(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return f"Bearer {token.strip()}" if scheme.lower() == "bearer" else authorization


def peer_from(request: BaseRequest) -> Peer:
    """Return the other end of a request's connection."""
    name = None if request.transport is None else request.transport.get_extra_info("peername")
    if not isinstance(name, tuple) or len(name) < 2:
        return Peer("http:unknown")
    host, port = str(name[0]), name[1]
    return peer_of(f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}")


def _certificates(request: BaseRequest) -> bytes:
    """Return the caller's own certificate, which TLS has verified, in PEM."""
    tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return b""
    own = tls.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(own).encode() if own else b""
