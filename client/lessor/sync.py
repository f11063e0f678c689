"""The blocking client, which threads may share: ``with lessor.sync.Client.from_environ() as c: …``."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from lessor.sync_wire import Lease
from lessor.v1.methods_pb2_sync import Methods

__all__ = ["Client", "Lease"]


class Client(Methods):
    """Calls a Lessor server; each RPC is a blocking method or an iterator."""

    def close(self) -> None:
        """Close the channel; later calls fail."""
        self._wire.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()
