"""The channel of ``lessor.sync.Client``: calls block."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from lessor.arguments import DurationLike
from lessor.base import ClientBase, note_failure
from lessor.calls import Method, run, run_stream
from lessor.channel import Connection
from lessor.clock import MachineClock
from lessor.leases import FAILURES, LeaseKeeper, LeaseView

A = TypeVar("A", bound=Message)


class SyncWire:
    """Sends requests over a blocking channel, which threads may share; no coroutine here is suspended."""

    def __init__(self, connection: Connection) -> None:
        """Connect by ``connection``."""
        self._connection = connection
        self._lock = threading.Lock()
        self._opened: grpc.Channel | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Return the address of the server, as it was configured."""
        return self._connection.address

    async def send(self, method: Method[A], request: Message, seconds: float, *, wait: bool = True) -> A:
        """Send a request and return its answer; raises ``grpc.RpcError``."""
        call = self._channel().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        metadata = self._connection.metadata()
        return call(request, timeout=seconds, metadata=metadata, wait_for_ready=wait)

    def open_stream(
        self, method: Method[A], request: Message, seconds: float | None
    ) -> AsyncGenerator[A, None]:
        """Send a request now, and yield its answers; raises ``grpc.RpcError``."""
        method_of = self._channel().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        metadata = self._connection.metadata()
        return _read(method_of(request, timeout=seconds, metadata=metadata, wait_for_ready=True))

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        time.sleep(seconds)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return MachineClock().monotonic()

    def close(self) -> None:
        """Close the channel; later calls fail."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()

    def _channel(self) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed; create another one")
            if self._opened is None:
                self._opened = self._connection.open(has_request_ids=True)
            return self._opened


async def _read(call: grpc._CallIterator[A]) -> AsyncGenerator[A, None]:
    try:
        for answer in call:
            yield answer
    finally:
        call.cancel()


class Lease(LeaseView):
    """Credentials that stay valid inside of ``with``: renewed in time by a thread, and revoked at its end.

    An IAM user's key stays the same until the lease's maximum. Then, and for an STS session before its end,
    the attributes change to new credentials; so read them when they are used.
    """

    def __enter__(self) -> Self:
        """Issue the credentials; raises ``lessor.Error``."""
        self._keeper.forbid_issued()
        run(self._keeper.issue())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lessor-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke the lease, also after an error; a renewal that is under way is waited for.

        Raises:
            lessor.Error: The server could not be reached; the lease then ends at its expiry. If the block
                failed, its error is raised instead, with a note.
            RuntimeError: The client was closed in the block.
        """
        self._stop.set()
        self._thread.join()
        try:
            run(self._keeper.end())
        except FAILURES as failed:
            if error is None:
                raise
            note_failure(error, failed)

    def _keep(self) -> None:
        async def wait(seconds: float) -> bool:
            return self._stop.wait(seconds)

        run(self._keeper.keep(wait))


class SyncCaller(ClientBase[Lease]):
    """The base of the generated methods of ``lessor.sync.Client``."""

    def _make_wire(self) -> SyncWire:
        self._wire = SyncWire(self._connection)
        return self._wire

    def _make_lease(self, keeper: LeaseKeeper) -> Lease:
        return Lease(keeper)

    def _call(
        self,
        path: str,
        request: type[Message],
        answer: type[A],
        fields: Mapping[str, object],
        limit: DurationLike | None,
    ) -> A:
        return run(self._calls.call(Method(path, request, answer), fields, limit))

    def _stream(
        self,
        path: str,
        request: type[Message],
        answer: type[A],
        fields: Mapping[str, object],
        limit: DurationLike | None,
    ) -> Generator[A, None, None]:
        return run_stream(self._calls.stream(Method(path, request, answer), fields, limit))
