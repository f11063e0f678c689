"""Checks which failed requests a command repeats, when and how often."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from lessor.cli.call import Call
from lessor.cli.retry import SPENT, repeated
from lessor.cli.styles import TABLE
from lessor.errors import DETAILS_KEY
from lessor.v1 import creds_pb2
from lessor_server.domain.errors.preconditions import RequestSpent

UNAVAILABLE, ABORTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED


class Refused(grpc.RpcError):
    """A failed call as gRPC raises it, with the pause that its server asks for, and its reason."""

    def __init__(self, code: grpc.StatusCode, retry_in: float | None = None, reason: str = "") -> None:
        """Fail with ``code``; ``retry_in`` in seconds. Without it and a reason no server answered."""
        self._code = code
        answer: list[Message] = [details.ErrorInfo(reason=reason)] if reason else []
        if retry_in is not None:
            delay = Duration()
            delay.FromTimedelta(timedelta(seconds=retry_in))
            answer.append(details.RetryInfo(retry_delay=delay))
        status = Status(code=code.value[0], message="busy")
        for detail in answer:
            status.details.add().Pack(detail)
        self._metadata = ((DETAILS_KEY, status.SerializeToString()),) if answer else ()

    def code(self) -> grpc.StatusCode:
        """Return the code."""
        return self._code

    def details(self) -> str:
        """Return the message."""
        return "busy"

    def trailing_metadata(self) -> object:
        """Return the metadata."""
        return self._metadata


class Clock:
    """A clock that moves by its sleeps, and by a second for each call that takes one."""

    def __init__(self) -> None:
        """Begin at an instant that is not zero."""
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return its time."""
        return self.now

    def sleep(self, seconds: float, /) -> None:
        """Move on."""
        self.slept.append(seconds)
        self.now += seconds


class Server:
    """Answers with each failure in turn, then with its name; a call takes a second."""

    def __init__(self, clock: Clock, *failures: Refused) -> None:
        """Fail with ``failures`` first."""
        self._clock = clock
        self._failures = list(failures)
        self.given: list[float] = []

    def __call__(self, seconds: float) -> str:
        """Take a call that may take ``seconds``."""
        self.given.append(seconds)
        self._clock.now += 1
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


def test_a_temporary_failure_is_retried_after_the_delay_of_the_server() -> None:
    clock = Clock()
    server = Server(clock, Refused(ABORTED, 0.25), Refused(UNAVAILABLE, 3))
    assert repeated(server, 60, clock) == "answer"
    assert clock.slept == [0.25, 3]
    assert server.given == [60, 58.75, 54.75]


def test_an_unreachable_server_is_called_four_times_with_doubling_pauses() -> None:
    clock = Clock()
    failures = [Refused(UNAVAILABLE) for _ in range(4)]
    with pytest.raises(Refused) as failed:
        repeated(Server(clock, *failures), 60, clock)
    assert clock.slept == [0.5, 1, 2]
    assert failed.value is failures[-1]


def test_no_retry_begins_after_the_timeout() -> None:
    clock = Clock()
    with pytest.raises(Refused):
        repeated(Server(clock, Refused(UNAVAILABLE, 5)), 6, clock)
    assert clock.slept == []


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_what_a_retry_cannot_fix_is_not_retried(code: grpc.StatusCode) -> None:
    clock = Clock()
    server = Server(clock, Refused(code, 0.1))
    with pytest.raises(Refused):
        repeated(server, 60, clock)
    assert (len(server.given), clock.slept) == (1, [])


def test_a_spent_request_id_is_reported_as_the_first_failure() -> None:
    """The first try spent the id, so the second one only says that it is spent."""
    clock = Clock()
    first = Refused(UNAVAILABLE, 1)
    spent = Refused(grpc.StatusCode.FAILED_PRECONDITION, reason=RequestSpent.reason)
    with pytest.raises(Refused) as failed:
        repeated(Server(clock, first, spent), 60, clock)
    assert failed.value is first
    assert RequestSpent.reason == SPENT
    with pytest.raises(Refused) as failed:
        repeated(Server(clock, spent), 60, clock)
    assert failed.value is spent


def test_a_retry_sends_the_same_request_id() -> None:
    seen: list[str] = []

    def generate(request: Message, timeout: float, metadata: object) -> Message:
        assert isinstance(request, creds_pb2.GenerateCredentialsRequest)
        assert 0 < timeout <= 60
        seen.append(request.request_id)
        if len(seen) < 3:
            raise Refused(ABORTED, 0)
        return creds_pb2.GenerateCredentialsResponse(lease_id="l")

    with Call("127.0.0.1:1", None, 60, TABLE) as call:
        request = creds_pb2.GenerateCredentialsRequest(role="app", request_id="an-id")
        answer = call.again(generate, request)  # type: ignore[arg-type]
    assert seen == ["an-id"] * 3
    assert answer.lease_id == "l"
