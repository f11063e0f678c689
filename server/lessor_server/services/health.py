"""grpc.health.v1: SERVING while calls are served and store and audit can write.

Source: grpc/grpc-proto, "health/v1/health.proto", and the gRPC guide "GRPC Health Checking Protocol".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2 as pb

from lessor_server.domain.errors.base import NotFound
from lessor_server.services.call import Caller

DESCRIPTOR = descriptor_pool.Default().FindServiceByName("grpc.health.v1.Health")

Status = pb.HealthCheckResponse
# The library's types do not know this newer message.
_ListResponse = GetMessageClass(DESCRIPTOR.methods_by_name["List"].output_type)


class Health:
    """The health of the server as a whole and of each service: they are healthy together.

    Each watcher waits for its own signal, so one that does not read delays no other.
    """

    DESCRIPTOR = DESCRIPTOR

    def __init__(self, services: Iterable[str]) -> None:
        """Answer for the full names in ``services`` and for the empty name; at first none is serving."""
        self._names = frozenset(("", *services))
        self._open = False
        self._store_works = self._audit_works = True
        self._watches: set[asyncio.Event] = set()

    def open(self) -> None:
        """Report that calls are served now."""
        self._open = True
        self._signal()

    def close(self) -> None:
        """Report that no new calls are served."""
        self._open = False
        self._signal()

    def store(self, *, works: bool) -> None:
        """Report whether the store can write."""
        self._store_works = works
        self._signal()

    def audit(self, *, works: bool) -> None:
        """Report whether audit records can be written, or need not be."""
        self._audit_works = works
        self._signal()

    @property
    def problem(self) -> str:
        """Return why no calls are served, or an empty text."""
        if not self._open:
            return "the server is starting or stopping"
        if not self._store_works:
            return "the store can't be written to"
        return "" if self._audit_works else "no audit sink can be written to"

    async def Check(self, request: pb.HealthCheckRequest, _: Caller) -> Status:
        """Return the health of one service.

        Raises:
            NotFound: The server has no such service.
        """
        if request.service not in self._names:
            raise NotFound("service", request.service)
        return self._status(request.service)

    async def List(self, _request: Message, _: Caller) -> Message:
        """Return the health of every service."""
        statuses = {name: self._status(name) for name in sorted(self._names)}
        return _ListResponse(statuses=statuses)

    async def Watch(self, request: pb.HealthCheckRequest, _: Caller) -> AsyncIterator[Status | None]:
        """Yield None when the watch has begun, then the health of one service, now and at each change."""
        name = request.service if request.service in self._names else None
        changed = asyncio.Event()
        self._watches.add(changed)
        try:
            yield None
            last: Status | None = None
            while True:
                changed.clear()
                status = self._status(name)
                if status != last:
                    last = status
                    yield status
                await changed.wait()
        finally:
            self._watches.discard(changed)

    def _status(self, name: str | None) -> Status:
        """Return the health of a service; None means that the server does not have it."""
        if name is None:
            return Status(status=Status.SERVICE_UNKNOWN)
        return Status(status=Status.NOT_SERVING if self.problem else Status.SERVING)

    def _signal(self) -> None:
        for changed in self._watches:
            changed.set()
