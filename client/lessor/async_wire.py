"""The channel of ``lessor.Client``: calls are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from lessor.arguments import DurationLike
from lessor.base import ClientBase, note_failure
from lessor.calls import Method
from lessor.channel import Connection, Metadata
from lessor.leases import FAILURES, LeaseKeeper, LeaseView

A = TypeVar("A", bound=Message)


class AsyncWire:
    """Sends requests over an asynchronous channel, which is opened by the first call in its event loop."""

    def __init__(self, connection: Connection) -> None:
        """Connect by ``connection``."""
        self._connection = connection
        self._opened: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
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
        metadata = await self._read_metadata()
        return await call(request, timeout=seconds, metadata=metadata, wait_for_ready=wait)

    async def open_stream(
        self, method: Method[A], request: Message, seconds: float | None
    ) -> AsyncGenerator[A, None]:
        """Send a request and yield its answers; raises ``grpc.RpcError``."""
        method_of = self._channel().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        metadata = await self._read_metadata()
        call = method_of(request, timeout=seconds, metadata=metadata, wait_for_ready=True)
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        await asyncio.sleep(seconds)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Close the channel; later calls fail."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close()

    async def _read_metadata(self) -> Metadata:
        """Return the metadata; a token's file may be on a slow disk, so a thread reads it."""
        if self._connection.token.strip() or self._connection.token_file is None:
            return self._connection.metadata()
        return await asyncio.to_thread(self._connection.metadata)

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("the client is closed; create another one")
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._opened, self._loop = self._connection.open_async(), loop
        if self._loop is not loop:
            raise RuntimeError("the client was used in another event loop; create a client for each")
        return self._opened


class Lease(LeaseView):
    """Credentials that stay valid inside of ``async with``: renewed in time, and revoked at its end.

    An IAM user's key stays the same until the lease's maximum. Then, and for an STS session before its end,
    the attributes change to new credentials; so read them when they are used.
    """

    async def __aenter__(self) -> Self:
        """Issue the credentials; raises ``lessor.Error``."""
        self._keeper.forbid_issued()
        await self._keeper.issue()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._keeper.keep(_sleep))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke the lease, also after an error or a cancellation.

        Raises:
            lessor.Error: The server could not be reached; the lease then ends at its expiry. If the block
                failed, its error is raised instead, with a note.
            RuntimeError: The client was closed in the block.
        """
        try:
            self._task.cancel()
            # Without the block's error, which would be wrapped in a group.
            await self._group.__aexit__(None, None, None)
        finally:
            try:
                await self._keeper.end()
            except FAILURES as failed:
                if error is None:
                    raise
                note_failure(error, failed)


async def _sleep(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return False


class AsyncCaller(ClientBase[Lease]):
    """The base of the generated methods of ``lessor.Client``."""

    def _make_wire(self) -> AsyncWire:
        self._wire = AsyncWire(self._connection)
        return self._wire

    def _make_lease(self, keeper: LeaseKeeper) -> Lease:
        return Lease(keeper)

    async def _call(
        self,
        path: str,
        request: type[Message],
        answer: type[A],
        fields: Mapping[str, object],
        limit: DurationLike | None,
    ) -> A:
        return await self._calls.call(Method(path, request, answer), fields, limit)

    def _stream(
        self,
        path: str,
        request: type[Message],
        answer: type[A],
        fields: Mapping[str, object],
        limit: DurationLike | None,
    ) -> AsyncGenerator[A, None]:
        return self._calls.stream(Method(path, request, answer), fields, limit)
