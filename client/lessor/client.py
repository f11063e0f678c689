"""The asynchronous client: ``async with lessor.Client.from_environ() as c: …``."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from lessor.async_wire import Lease
from lessor.v1.methods_pb2_async import Methods

__all__ = ["Client", "Lease"]


class Client(Methods):
    """Calls a Lessor server from one event loop; each RPC is a coroutine or an asynchronous iterator."""

    async def close(self) -> None:
        """Close the channel; later calls fail."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()
