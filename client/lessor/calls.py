"""What both clients do around a call: its request id, its deadline, its retries and its typed errors.

The code is written once, as coroutines over a ``Wire``. The wire of ``lessor.Client`` awaits; the wire of
``lessor.sync.Client`` blocks, so its coroutines end without ever being suspended, and ``run`` needs no loop.

gRPC itself retries what the service config lists. Here follow the retries that need more than a status code.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from lessor import errors
from lessor.arguments import DurationLike, build_request, span
from lessor.reasons import Reason

DEFAULT_TIMEOUT: Final = timedelta(seconds=30)
LONG_TIMEOUT: Final = timedelta(hours=1)
"""The deadline of a stream that ends when its work is done; a watch has none."""
MAX_TRIES: Final = 5
FIRST_PAUSE_SECONDS: Final = 0.5
PROBE_SECONDS: Final = 1.0
"""How long it may take after a deadline to find out why there was no connection."""

A = TypeVar("A", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method(Generic[A]):
    """An RPC: its path, ``/package.Service/Name``, and the types of its messages."""

    path: str
    request: type[Message]
    answer: type[A]

    @property
    def is_watch(self) -> bool:
        """Return whether it is a stream without an end."""
        return self.path.rpartition("/")[2].startswith("Watch")


_PROBE: Final = Method("/grpc.health.v1.Health/Check", Empty, Empty)


class Wire(Protocol):
    """Sends requests over a channel."""

    @property
    def address(self) -> str:
        """Return the address of the server, as it was configured."""
        ...

    async def send(self, method: Method[A], request: Message, seconds: float, *, wait: bool = True) -> A:
        """Send a request and return its answer; raises ``grpc.RpcError``.

        With ``wait`` it waits until the server can be reached; else it fails with the reason why it can't.
        """
        ...

    def open_stream(
        self, method: Method[A], request: Message, seconds: float | None
    ) -> AsyncGenerator[A, None]:
        """Send a request and yield its answers; raises ``grpc.RpcError``."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class Calls:
    """Calls one server; each method of a client is one ``call`` or ``stream``."""

    def __init__(self, wire: Wire, timeout: timedelta, rng: random.Random) -> None:
        """Call over ``wire``; ``timeout`` is the default, and ``rng`` draws request ids."""
        self._wire = wire
        self._timeout = timeout
        self._rng = rng

    async def call(self, method: Method[A], fields: Mapping[str, object], limit: DurationLike | None) -> A:
        """Call a unary method, within the deadline; raises ``errors.Error``."""
        request = build_request(method.request, fields)
        has_own_id = self._fill_request_id(request)
        until = self._wire.monotonic() + self._seconds(request, limit)
        tries = 0
        while True:
            tries += 1
            try:
                return await self._wire.send(method, request, max(until - self._wire.monotonic(), 0.0))
            except grpc.RpcError as failure:
                error = await self._explain(failure)
            pause = _pause(error, request, tries, has_own_id=has_own_id)
            if pause is None or self._wire.monotonic() + pause >= until:
                raise error
            if error.reason is Reason.REQUEST_ID_SPENT:
                has_own_id = False  # one more try is enough
                _set_request_id(request, self._rng)
            await self._wire.sleep(pause)

    def stream(
        self, method: Method[A], fields: Mapping[str, object], limit: DurationLike | None
    ) -> AsyncGenerator[A, None]:
        """Call a streaming method and yield its answers; raises ``errors.Error``."""
        request = build_request(method.request, fields)
        self._fill_request_id(request)
        if limit is None and not method.is_watch:
            limit = LONG_TIMEOUT
        seconds = None if limit is None else span(limit).total_seconds()
        return self._with_typed_errors(self._wire.open_stream(method, request, seconds))

    async def _with_typed_errors(self, answers: AsyncGenerator[A, None]) -> AsyncGenerator[A, None]:
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except grpc.RpcError as failure:
            raise await self._explain(failure) from None

    async def _explain(self, failure: grpc.RpcError) -> errors.Error:
        """Return the typed error; for a deadline that passed without a connection, why there is none."""
        error = errors.of(cast("errors.Failure", failure), self._wire.address)
        if isinstance(error, errors.DeadlineExceeded) and not error.reason_name:
            try:
                await self._wire.send(_PROBE, Empty(), PROBE_SECONDS, wait=False)
            except grpc.RpcError as probed:
                cause = errors.of(cast("errors.Failure", probed), self._wire.address)
                if isinstance(cause, errors.Unavailable) and not cause.reason_name:
                    return cause
        return error

    def _fill_request_id(self, request: Message) -> bool:
        """Give a request that has no id one of its own; return whether it did."""
        if getattr(request, "request_id", None) != "":
            return False
        _set_request_id(request, self._rng)
        return True

    def _seconds(self, request: Message, limit: DurationLike | None) -> float:
        """Return the deadline; without one of its own, a call that waits for AWS gets that time too."""
        if limit is not None:
            return span(limit).total_seconds()
        wait = getattr(request, "wait_usable", None)
        return (self._timeout + (wait.ToTimedelta() if wait is not None else timedelta())).total_seconds()


def _pause(error: errors.Error, request: Message, tries: int, *, has_own_id: bool) -> float | None:
    """Return how long to wait before the request is sent again; None if it is not."""
    if not getattr(request, "request_id", "") or tries >= MAX_TRIES:
        return None
    if error.reason is Reason.REQUEST_ID_SPENT:
        # A drawn id is spent only if an earlier try of the same call was not completed.
        return 0.0 if has_own_id else None
    if isinstance(error, errors.Aborted):
        # Another replica works on the same id, or the root changed meanwhile.
        asked = error.retry_after.total_seconds() if error.retry_after else 0.0
        return max(asked, FIRST_PAUSE_SECONDS)
    return None


def _set_request_id(request: Message, rng: random.Random) -> None:
    """Set a new request id: a random UUID (RFC 9562, version 4)."""
    setattr(request, "request_id", draw_request_id(rng))  # noqa: B010


def run(work: Coroutine[object, object, T]) -> T:
    """Return the result of a coroutine that is never suspended, because its wire blocks."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    raise AssertionError("a blocking wire suspends nothing")


def run_stream(answers: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Yield what an asynchronous generator over a blocking wire yields."""
    try:
        while True:
            try:
                answer = run(answers.__anext__())
            except StopAsyncIteration:
                return
            yield answer
    finally:
        run(answers.aclose())


def draw_request_id(rng: random.Random) -> str:
    """Return a new request id: a random UUID (RFC 9562, version 4)."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
