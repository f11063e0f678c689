"""The options of the gRPC server: limits for one connection and for all of them.

Source: grpc/grpc, "include/grpc/impl/channel_arg_names.h"; the gRPC guides "Keepalive" and "Connection
backoff". tests/e2e/test_hostile_callers.py checks their effects with grpcio 1.85.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

HANDSHAKE = timedelta(seconds=10)
KEEPALIVE = timedelta(seconds=60)
KEEPALIVE_TIMEOUT = timedelta(seconds=20)
MIN_CLIENT_PING_INTERVAL = timedelta(seconds=9)
"""Clients are promised 10 s; the second is for timers that fire early."""

WINDOW_BYTES = 65_535
"""Bytes that a stream may send before they are read: the initial window of HTTP/2 (RFC 9113, 6.9.2)."""

MAX_PENDING_CALLS = 8_192
MAX_MESSAGE_BYTES = (1 << 20) + (64 << 10)
"""Above a request's limit (``services/parsing.py``), so that the parser refuses it, with details."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits: ``streams`` and ``metadata_bytes`` of one connection; ``idle`` and ``age`` close it.

    At its ``age`` a connection takes no new calls; those in progress continue to their end.
    """

    connections: int
    streams: int
    metadata_bytes: int
    idle: timedelta
    age: timedelta
    shares_ports: bool = False
    """Whether other workers listen on the same ports."""


def channel_options(limits: ConnectionLimits) -> tuple[tuple[str, int], ...]:
    """Return the options of a server that untrusted callers can reach."""
    return (
        # Otherwise two servers could share a port without an error.
        ("grpc.so_reuseport", int(limits.shares_ports)),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.idle)),
        # No grpc.max_connection_age_grace_ms: it would end every open stream at that age.
        ("grpc.max_connection_age_ms", _milliseconds(limits.age)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(HANDSHAKE)),
        # Between the soft and the absolute limit gRPC refuses at random.
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        # Until a peer acknowledges our settings, the limits on headers are those of HTTP/2.
        ("grpc.http2.settings_timeout", _milliseconds(HANDSHAKE)),
        # One table entry, referenced often, turns 12 kB into 50 MB of headers.
        ("grpc.http2.hpack_table_size.decoder", 0),
        ("grpc.http2.bdp_probe", 0),  # it would widen the windows of fast senders
        # Twice the same: between the two limits gRPC refuses at random.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(MIN_CLIENT_PING_INTERVAL)),
    )


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
