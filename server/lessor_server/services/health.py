"""grpc.health.v1: SERVING while calls are served and the store can write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from grpc_health.v1 import health, health_pb2


class Health:
    """Keeps the health of the server as a whole and of each service."""

    def __init__(self, services: Iterable[str]) -> None:
        """Answer for ``services``, full names, and for the empty name; at first none is serving."""
        self.servicer = health.aio.HealthServicer()
        self._names = ("", *services)
        self._open = False
        self._store_works = True
        self._changed = asyncio.Event()
        self._changed.set()

    def open(self) -> None:
        """Say that calls are served from now on."""
        self._open = True
        self._changed.set()

    def close(self) -> None:
        """Say that no more calls should come."""
        self._open = False
        self._changed.set()

    def store(self, *, works: bool) -> None:
        """Say whether the store can write."""
        self._store_works = works
        self._changed.set()

    async def run(self) -> None:
        """Tell what changed to all who ask and watch, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            serving = self._open and self._store_works
            status = (
                health_pb2.HealthCheckResponse.SERVING
                if serving
                else health_pb2.HealthCheckResponse.NOT_SERVING
            )
            for name in self._names:
                await self.servicer.set(name, status)
