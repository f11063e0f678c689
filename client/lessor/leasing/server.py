"""Calls of a Lessor server that issue, renew and revoke one lease, for programs that run an event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message

from lessor import errors
from lessor.channel import Connection
from lessor.leasing.clock import Clock
from lessor.leasing.issued import Issued, Order
from lessor.refresh import Term, end_on_this_clock
from lessor.v1 import creds_pb2, lease_pb2
from lessor.v1.creds_pb2_grpc import CredsServiceStub
from lessor.v1.lease_pb2_grpc import LeaseServiceStub

SECONDS: Final = 60.0
"""Timeout of an issue and of a renewal; an issue also gets the time until the key is usable."""
SPENT: Final = "REQUEST_ID_SPENT"

RECONNECT: Final = (("grpc.initial_reconnect_backoff_ms", 500), ("grpc.max_reconnect_backoff_ms", 3_000))
"""A server that was restarted is found soon: gRPC's own pauses grow up to two minutes."""

Answer = TypeVar("Answer", bound=Message)


class LeaseServer(Protocol):
    """Issues, renews and revokes leases.

    Every method raises ``errors.Error`` if the call does not succeed, and ``BadConnection`` if the
    token can't be read.
    """

    async def issue(self, order: Order, request_id: str) -> Issued:
        """Issue credentials; a repeated id gets the same lease."""
        ...

    async def renew(self, issued: Issued) -> Issued:
        """Renew the lease by the lifetime that it was issued with."""
        ...

    async def revoke(self, lease_id: str, seconds: float) -> str:
        """Revoke a lease, wait for the result at most ``seconds``, and return why it is not done yet."""
        ...


class GrpcLeaseServer:
    """A server at the end of a channel, which is open inside the ``async with`` block."""

    def __init__(self, connection: Connection, clock: Clock, seconds: float = SECONDS) -> None:
        """Call the server of ``connection``; ``seconds`` limits each call."""
        self._connection = connection
        self._clock = clock
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        """Open the channel; raises ``BadConnection``."""
        credentials = self._connection.credentials()
        target, options = self._connection.target, (*self._connection.options, *RECONNECT)
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options)
        )
        self._creds = CredsServiceStub(self._channel)
        self._leases = LeaseServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self._channel.close()

    async def issue(self, order: Order, request_id: str) -> Issued:
        """Issue credentials."""
        request = creds_pb2.GenerateCredentialsRequest(
            mount=order.mount, role=order.role, request_id=request_id
        )
        _fill(request, order)
        sent = self._clock.now()
        seconds = self._seconds + order.wait_usable.total_seconds()
        made = await self._call(
            self._creds.GenerateCredentials(request, timeout=seconds, metadata=self._connection.metadata())
        )
        granted = made.lease_duration.ToTimedelta()
        end = self._end(sent, granted, made.expire_time.ToDatetime(self._clock.now().tzinfo))
        return Issued(
            lease_id=made.lease_id,
            access_key=made.access_key,
            secret_key=made.secret_key,
            session_token=made.security_token,
            term=Term(sent, end, granted, made.lease_renewable),
            usable=made.usable or not order.wait_usable,
            warnings=tuple(made.warnings),
        )

    async def renew(self, issued: Issued) -> Issued:
        """Renew a lease."""
        request = lease_pb2.RenewLeaseRequest(lease_id=issued.lease_id)
        sent = self._clock.now()
        answer = await self._call(
            self._leases.RenewLease(request, timeout=self._seconds, metadata=self._connection.metadata())
        )
        granted = answer.lease_duration.ToTimedelta()
        end = self._end(sent, granted, answer.expire_time.ToDatetime(self._clock.now().tzinfo))
        term = issued.term.after_renewal(sent, end, granted, renewable=answer.lease_renewable)
        return issued.with_term(term)

    async def revoke(self, lease_id: str, seconds: float) -> str:
        """Revoke a lease; empty if it has ended."""
        request = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=True)
        answer = await self._call(
            self._leases.RevokeLease(request, timeout=seconds, metadata=self._connection.metadata())
        )
        accepted = answer.outcome == lease_pb2.RevokeLeaseResponse.ACCEPTED
        return (answer.last_error or "AWS has not confirmed it yet") if accepted else ""

    def _end(self, sent: datetime, granted: timedelta, expire_time: datetime) -> datetime:
        return end_on_this_clock(sent, self._clock.now(), granted, expire_time)

    async def _call(self, answer: Awaitable[Answer]) -> Answer:
        """Wait for an answer; raises ``errors.Error``."""
        try:
            return await answer
        except grpc.RpcError as failure:
            raise errors.of(cast("errors.Failure", failure), self._connection.address) from None


def _fill(request: creds_pb2.GenerateCredentialsRequest, order: Order) -> None:
    if order.wait_usable:
        request.wait_usable.FromTimedelta(order.wait_usable)
    for name, value in order.fields.items():
        if isinstance(value, timedelta):
            getattr(request, name).FromTimedelta(value)
        elif isinstance(value, Message):
            getattr(request, name).CopyFrom(value)
        else:
            setattr(request, name, value)
