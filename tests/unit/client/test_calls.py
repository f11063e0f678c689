"""Request ids, deadlines and retries of a call, over a wire that answers by a script."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from datetime import timedelta

import grpc
import pytest
from google.protobuf.message import Message
from tests.support.fake_wire import FakeWire, RefusedCall

from lessor import errors
from lessor.calls import Calls, Method, run, run_stream
from lessor.reasons import Reason
from lessor.v1 import creds_pb2, lease_pb2, role_pb2

GENERATE = Method(
    "/lessor.v1.CredsService/GenerateCredentials",
    creds_pb2.GenerateCredentialsRequest,
    creds_pb2.GenerateCredentialsResponse,
)
GET_ROLE = Method("/lessor.v1.RoleService/GetRole", role_pb2.GetRoleRequest, role_pb2.GetRoleResponse)
WATCH = Method(
    "/lessor.v1.LeaseService/WatchLeases", lease_pb2.WatchLeasesRequest, lease_pb2.WatchLeasesResponse
)
PREFIX = Method(
    "/lessor.v1.LeaseService/RevokePrefix", lease_pb2.RevokePrefixRequest, lease_pb2.RevokePrefixResponse
)
MADE = creds_pb2.GenerateCredentialsResponse(lease_id="aws/creds/app/1")
SPENT = RefusedCall(grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_SPENT")
BUSY = RefusedCall(grpc.StatusCode.ABORTED, "ABORTED", 2.0)


def scripted(*answers: Message | RefusedCall) -> tuple[FakeWire, Calls]:
    """Return calls over a wire that gives these answers in turn."""
    left = iter(answers)
    wire = FakeWire(lambda *_: next(left))
    return wire, Calls(wire, timedelta(seconds=30), random.Random(1))


def ids(wire: FakeWire) -> list[str]:
    """Return the request ids that were sent."""
    return [getattr(request, "request_id", "") for _, request in wire.sent]


def test_a_call_that_issues_gets_a_request_id() -> None:
    wire, calls = scripted(MADE)
    run(calls.call(GENERATE, {"role": "app"}, None))
    assert uuid.UUID(ids(wire)[0]).version == 4


def test_the_request_id_of_the_caller_is_kept() -> None:
    wire, calls = scripted(MADE)
    given = "00000000-0000-4000-8000-000000000001"
    run(calls.call(GENERATE, {"role": "app", "request_id": given}, None))
    assert ids(wire) == [given]


def test_a_drawn_id_that_is_spent_is_replaced_once() -> None:
    wire, calls = scripted(SPENT, MADE)
    assert run(calls.call(GENERATE, {"role": "app"}, None)) == MADE
    assert len(set(ids(wire))) == 2
    wire, calls = scripted(SPENT, SPENT)
    with pytest.raises(errors.Precondition) as refused:
        run(calls.call(GENERATE, {"role": "app"}, None))
    assert refused.value.reason is Reason.REQUEST_ID_SPENT
    assert len(wire.sent) == 2


def test_an_id_of_the_caller_that_is_spent_is_reported() -> None:
    wire, calls = scripted(SPENT)
    with pytest.raises(errors.Precondition):
        run(calls.call(GENERATE, {"request_id": "00000000-0000-4000-8000-000000000001"}, None))
    assert len(wire.sent) == 1


def test_an_issue_that_another_replica_works_on_is_repeated_with_the_same_id() -> None:
    """It waits for as long as the server says, and then finds the id spent, if the replica gave up."""
    wire, calls = scripted(BUSY, BUSY, SPENT, MADE)
    assert run(calls.call(GENERATE, {"role": "app"}, None)) == MADE
    assert wire.clock.seconds == 4.0
    assert ids(wire)[0] == ids(wire)[1] == ids(wire)[2] != ids(wire)[3]


def test_retries_end_before_the_deadline() -> None:
    wire, calls = scripted(BUSY, BUSY, BUSY)
    with pytest.raises(errors.Aborted):
        run(calls.call(GENERATE, {"role": "app"}, 3))
    assert wire.limits == [3.0, 1.0]


def test_other_calls_are_not_repeated() -> None:
    wire, calls = scripted(BUSY)
    with pytest.raises(errors.Aborted) as refused:
        run(calls.call(GET_ROLE, {"name": "app"}, None))
    assert refused.value.retry_after == timedelta(seconds=2)
    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    ("fields", "limit", "seconds"),
    [
        ({}, None, 30.0),
        ({"wait_usable": "1m"}, None, 90.0),
        ({"wait_usable": "1m"}, "5s", 5.0),
        ({}, timedelta(minutes=2), 120.0),
    ],
)
def test_a_call_has_a_deadline(
    fields: dict[str, object], limit: str | timedelta | None, seconds: float
) -> None:
    wire, calls = scripted(MADE)
    run(calls.call(GENERATE, fields, limit))
    assert wire.limits == [seconds]


def test_only_a_watch_has_no_deadline() -> None:
    answers: Iterable[Message] = (lease_pb2.WatchLeasesResponse(), lease_pb2.RevokePrefixResponse())
    wire, calls = scripted(*answers)
    assert len(list(run_stream(calls.stream(WATCH, {"prefix": "aws/"}, None)))) == 1
    assert len(list(run_stream(calls.stream(PREFIX, {"prefix": "aws/"}, None)))) == 1
    assert wire.limits == [None, 3600.0]


def test_a_stream_that_fails_raises_a_typed_error() -> None:
    _, calls = scripted(RefusedCall(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"))
    with pytest.raises(errors.PermissionDenied):
        next(run_stream(calls.stream(WATCH, {"prefix": "aws/"}, None)))


def test_a_deadline_without_a_connection_says_why_there_was_none() -> None:
    late = RefusedCall(grpc.StatusCode.DEADLINE_EXCEEDED)
    wire, calls = scripted(late, RefusedCall(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(errors.Unavailable, match="can't reach a server at"):
        run(calls.call(GET_ROLE, {"name": "app"}, None))
    assert wire.names() == ["GetRole", "Check"]
    for connected in (MADE, RefusedCall(grpc.StatusCode.UNIMPLEMENTED), late):
        _, calls = scripted(late, connected)
        with pytest.raises(errors.DeadlineExceeded):
            run(calls.call(GET_ROLE, {"name": "app"}, None))
