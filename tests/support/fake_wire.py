"""A server in place of a channel: it answers as a script says, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from lessor.calls import Method
from lessor.errors import DETAILS_KEY

A = TypeVar("A", bound=Message)
START = datetime(2026, 1, 1, tzinfo=UTC)


class RefusedCall(grpc.RpcError):
    """A failed call as gRPC raises it: with a reason if a Lessor server answered."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", retry_after: float | None = None) -> None:
        self._code = code
        self._status = Status(code=code.value[0], message="no; call later")
        if reason:
            self._status.details.add().Pack(error_details_pb2.ErrorInfo(domain="lessor", reason=reason))
        if retry_after is not None:
            delay = error_details_pb2.RetryInfo()
            delay.retry_delay.FromTimedelta(timedelta(seconds=retry_after))
            self._status.details.add().Pack(delay)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._status.message

    def trailing_metadata(self) -> object:
        return ((DETAILS_KEY, self._status.SerializeToString()),) if self._status.details else ()


@dataclass
class FakeClock:
    """Wall time and monotonic time that only the test moves."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class FakeWire:
    """Answers each call by a function of the method's name and the request, and keeps what was sent."""

    answer: Callable[[str, Message], Message | RefusedCall]
    clock: FakeClock = field(default_factory=FakeClock)
    address: str = "127.0.0.1:1"
    sent: list[tuple[str, Message]] = field(default_factory=list)
    limits: list[float | None] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return the methods that were called."""
        return [name for name, _ in self.sent]

    def _take(self, path: str, request: Message, seconds: float | None) -> Message:
        name = path.rpartition("/")[2]
        copy = type(request)()
        copy.CopyFrom(request)
        self.sent.append((name, copy))
        self.limits.append(seconds)
        found = self.answer(name, copy)
        if isinstance(found, RefusedCall):
            raise found
        return found

    async def send(self, method: Method[A], request: Message, seconds: float, *, wait: bool = True) -> A:
        return cast("A", self._take(method.path, request, seconds))

    async def open_stream(
        self, method: Method[A], request: Message, seconds: float | None
    ) -> AsyncGenerator[A, None]:
        yield cast("A", self._take(method.path, request, seconds))

    async def sleep(self, seconds: float) -> None:
        self.clock.seconds += seconds
        if asyncio._get_running_loop() is not None:
            await asyncio.sleep(0)

    def monotonic(self) -> float:
        return self.clock.monotonic()
