"""The gRPC server: its listeners with and without certificates, and its limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import grpc

from lessor_server.adapters.process import allot_connections, raise_limit
from lessor_server.adapters.tls import Certificates
from lessor_server.domain.errors.base import LessorError
from lessor_server.services.call_paths import accept_undecodable_paths
from lessor_server.services.channel_options import ConnectionLimits, channel_options
from lessor_server.services.until_unsealed import UntilUnsealed
from lessor_server.settings.model import Settings
from lessor_server.settings.parsers import Listener


class PortTaken(LessorError):
    """The address to listen on is in use, or not this machine's."""

    reason = "CANNOT_LISTEN"
    fix = "stop the process that listens there, or set another address with LESSOR_LISTEN"


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return the limits of connections; raises the process's limit of file descriptors."""
    limits = settings.limits
    return ConnectionLimits(
        allot_connections(raise_limit(), limits.connections, settings.aws.in_flight),
        limits.streams_per_connection,
        limits.metadata_bytes,
        limits.connection_idle,
        limits.connection_age,
        shares_ports=bool(settings.worker),
    )


def build_server(limits: ConnectionLimits, handlers: Iterable[grpc.GenericRpcHandler]) -> grpc.aio.Server:
    """Return a server that does not listen yet."""
    server = grpc.aio.server(options=channel_options(limits))
    server.add_generic_rpc_handlers(tuple(handlers))
    return server


async def open_ports(
    server: grpc.aio.Server, listeners: Iterable[Listener], certificates: Certificates | None
) -> list[str]:
    """Open all ports and serve; return the addresses, with the ports that the system chose.

    Raises:
        PortTaken: An address can't be used.
    """
    addresses = [_add_port(server, listener, certificates) for listener in listeners]
    accept_undecodable_paths()
    await server.start()
    return addresses


class Port:
    """The gRPC server and its addresses: closed, then open with ``gate``, then serving all that it opens to.

    As a context manager it stops the server at the end of the block.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        listeners: Iterable[Listener],
        certificates: Certificates | None,
        gate: UntilUnsealed,
    ) -> None:
        """Serve by ``gate`` at the addresses of ``listeners``."""
        self._server = build_server(limits, (gate,))
        self._listeners = tuple(listeners)
        self._certificates = certificates
        self._gate = gate
        self._addresses: list[str] = []

    async def open(self) -> None:
        """Open all ports, unless they are open.

        Raises:
            PortTaken: An address can't be used.
        """
        if not self._addresses:
            self._addresses = await open_ports(self._server, self._listeners, self._certificates)

    async def serve(self, handlers: Sequence[grpc.GenericRpcHandler]) -> list[str]:
        """Serve by ``handlers``; return the addresses, with the ports that the system chose."""
        self._gate.open(handlers)
        await self.open()
        return self._addresses

    async def stop(self, grace: float) -> None:
        """Stop the server; calls have ``grace`` seconds to end."""
        if self._addresses:
            await self._server.stop(grace)

    async def __aenter__(self) -> Self:
        """Begin closed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop without waiting for calls in progress."""
        await self.stop(0)


def _add_port(server: grpc.aio.Server, listener: Listener, certificates: Certificates | None) -> str:
    address = str(listener.address)
    try:
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            anybody = listener.client_auth == "none"
            port = server.add_secure_port(address, certificates.credentials(client_auth=not anybody))
    except RuntimeError as error:
        why = str(error).partition(";")[0]  # the rest is about gRPC's environment variables
        raise PortTaken(f"cannot listen on {address}: {why}") from None
    return address if listener.address.path else f"{address.rpartition(':')[0]}:{port}"
