"""gRPC's side of the guard: handlers for its methods, and each call as an ``Exchange``.

The handlers start with the metadata of a call, so an unknown caller is refused before its message is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from lessor_server.domain.access.caller import UNIX, Credential, IpAddress, Peer
from lessor_server.services import status
from lessor_server.services.call import UNKNOWN_METHOD, Method
from lessor_server.services.guard import CallRefusal, Guard

DEADLINE_MARGIN_SECONDS = 0.02
"""Subtracted from each deadline, so that the caller gets our answer before its own timeout."""

REQUEST_ID_KEY = "lessor-request-id"
"""The trailing metadata with the id of a call's audit records."""

Context = grpc.aio.ServicerContext[Any, Any]

_CERTIFICATE, _CHAIN = "x509_pem_cert", "x509_pem_cert_chain"
"""The caller's own certificate, and the others that it sent, of which TLS need not have used any.

Source: grpc/grpc, "include/grpc/grpc_security_constants.h"; the chain of a server's peer lacks its own one.
"""


class GrpcHandlers:
    """Makes gRPC handlers of services; each call goes through the guard."""

    def __init__(self, guard: Guard) -> None:
        """Serve by ``guard``."""
        self._guard = guard

    def service(
        self, descriptor: ServiceDescriptor, implementation: object, name: str = ""
    ) -> grpc.GenericRpcHandler:
        """Return the handlers of one service; ``name`` replaces its own name.

        Raises:
            LookupError: A method has no permission.
        """
        methods = self._guard.methods(descriptor, implementation)
        return grpc.method_handlers_generic_handler(
            name or descriptor.full_name, {short: self._handler(method) for short, method in methods}
        )

    def unknown_methods(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods that no other handler serves; add it last."""
        return _AnyMethod(self._handler(UNKNOWN_METHOD))

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        async def serve(_: object, context: Context) -> Message | None:
            exchange = GrpcExchange(context)
            outcome = await self._guard.serve(method, exchange)
            if isinstance(outcome, CallRefusal):
                await exchange.abort(outcome)
            return outcome

        # A unary handler would start only after the whole message is in memory. These start with the
        # metadata, so the message of an unknown caller is never read.
        if method.answers or method.converses:
            return grpc.stream_stream_rpc_method_handler(serve, None, _serialize)
        return grpc.stream_unary_rpc_method_handler(serve, None, _serialize)


class GrpcExchange:
    """One call on gRPC."""

    def __init__(self, context: Context) -> None:
        """Read from and write to ``context``."""
        self._context = context
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._credential: Credential | None = None

    def metadata(self) -> Mapping[str, str]:
        """Return the text metadata of the call; of repeated keys the last."""
        metadata = self._context.invocation_metadata() or ()
        return {key: value for key, value in metadata if isinstance(value, str)}

    def set_request_id(self, request_id: str) -> None:
        """Send the id of the call's audit records as trailing metadata."""
        self._trailing = ((REQUEST_ID_KEY, request_id),) if request_id else ()
        if self._trailing:
            self._context.set_trailing_metadata(self._trailing)

    @property
    def credential(self) -> Credential:
        """Return the caller's peer, its authorization values, and without any its certificates."""
        if self._credential is None:
            metadata = self._context.invocation_metadata() or ()
            authorization = tuple([value for key, value in metadata if key == "authorization"])
            # A token wins over a certificate, which is then not read: that takes as long as all of this.
            certificates = b"" if authorization else _certificates(self._context)
            self._credential = Credential(peer_of(self._context.peer()), authorization, certificates)
        return self._credential

    @property
    def seconds(self) -> float | None:
        """Return the seconds until the caller's deadline, less the time of the answer; None without one."""
        left = cast("float | None", self._context.time_remaining())
        return None if left is None else left - DEADLINE_MARGIN_SECONDS

    async def read(self) -> bytes | None:
        """Return the next message; None if the caller sends no more."""
        data = await self._context.read()
        return None if data is grpc.aio.EOF else cast("bytes", data)

    async def begin(self) -> None:
        """Send the initial metadata: the subscription has begun."""
        try:
            await self._context.send_initial_metadata(())
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None  # gRPC can't write to a caller that has disconnected

    async def write(self, message: Message) -> None:
        """Send one message of a stream."""
        try:
            await self._context.write(message)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None

    async def abort(self, refusal: CallRefusal) -> NoReturn:
        """End the call with the status of an error; never return."""
        answer = status.error_status(refusal.error, sees_root=refusal.sees_root)
        try:
            trailing = (*self._trailing, (status.DETAILS_KEY, answer.details))
            await self._context.abort(answer.code, answer.message, trailing)
        except grpc.aio.InternalError:
            # A message is half-written to a caller that does not read: gRPC accepts no status. The call
            # ends with its connection.
            raise asyncio.CancelledError from None
        raise AssertionError("abort raises")


@lru_cache(maxsize=1024)
def peer_of(text: str) -> Peer:
    """Return the peer that gRPC names ``ipv4:ADDRESS:PORT``, ``ipv6:[ADDRESS]:PORT`` or ``unix:…``.

    Any other has no known address. Brackets may be percent-encoded.
    Source: gRPC, "Name resolution", section "Name syntax".
    """
    scheme, _, rest = text.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return Peer(text, UNIX)
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address: IpAddress = ipaddress.ip_address(host)
    except ValueError:
        return Peer(text)
    if scheme not in ("ipv4", "ipv6"):
        return Peer(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Peer(text, address)


def _certificates(context: Context) -> bytes:
    """Return the caller's own certificate, which TLS has verified, and the others that it sent, in PEM."""
    known = context.auth_context()
    own = b"".join(known.get(_CERTIFICATE, ()))
    return own + b"".join(known.get(_CHAIN, ())) if own else b""


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


@dataclass(frozen=True, slots=True)
class _AnyMethod(grpc.GenericRpcHandler):
    """Serves every method by one handler."""

    handler: grpc.RpcMethodHandler[Any, Any]

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the one handler."""
        return self.handler
