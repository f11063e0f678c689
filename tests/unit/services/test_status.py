"""Checks how errors become statuses with details."""

from __future__ import annotations

from typing import cast

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from lessor_server.domain.aws.errors import AwsRefused, Refusal
from lessor_server.domain.errors.base import (
    MAX_PATH,
    AlreadyExists,
    AwsAnswer,
    AwsUnavailable,
    ErrorKind,
    Invalid,
    LessorError,
    NotFound,
    RequestIdReused,
    SessionPolicyWouldWiden,
    Violation,
)
from lessor_server.services import status
from tests.unit.domain.test_errors import ERRORS

CODES = {
    ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorKind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.QUOTA: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.ABORTED: grpc.StatusCode.ABORTED,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}
SPECIAL = {
    ErrorKind.INVALID: details.BadRequest,
    ErrorKind.NOT_FOUND: details.ResourceInfo,
    ErrorKind.EXISTS: details.ResourceInfo,
    ErrorKind.PRECONDITION: details.PreconditionFailure,
    ErrorKind.QUOTA: details.QuotaFailure,
    ErrorKind.UNAVAILABLE: details.RetryInfo,
    ErrorKind.ABORTED: details.RetryInfo,
}
DETAILS = (
    details.ErrorInfo,
    details.BadRequest,
    details.ResourceInfo,
    details.PreconditionFailure,
    details.QuotaFailure,
    details.RetryInfo,
    details.Help,
)
RAISED = [kind for kind in ERRORS if kind.__name__ != "AwsError"]


def made(kind: type[LessorError]) -> LessorError:
    """Make an error of a class without knowing its arguments."""
    if kind is Invalid:
        return Invalid((Violation("role.name", "is not a valid name", "give one"),))
    if issubclass(kind, (NotFound, AlreadyExists)):
        return kind("role", "aws/app")
    if kind is RequestIdReused:
        return RequestIdReused("aws/app")
    if kind is SessionPolicyWouldWiden:
        return SessionPolicyWouldWiden("app")
    error = kind.__new__(kind)
    LessorError.__init__(error, "it happened", subject="aws/app", retry_in=2.5)
    return error


def decoded(wire: bytes) -> dict[type[Message], Message]:
    """Return the details of a status by their type; an unknown one fails the test."""
    found: dict[type[Message], Message] = {}
    for packed in Status.FromString(wire).details:
        (kind,) = [one for one in DETAILS if packed.Is(one.DESCRIPTOR)]
        found[kind] = kind()
        assert packed.Unpack(found[kind])
    return found


def test_every_kind_has_a_status_code() -> None:
    assert {kind: status.code_of(kind) for kind in ErrorKind} == CODES


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_becomes_a_status_with_its_details(kind: type[LessorError]) -> None:
    error = made(kind)
    refusal = status.error_status(error, sees_root=False)
    assert refusal.code is CODES[error.kind]
    assert (error.fix if kind is not Invalid else "give one") in refusal.message
    whole = Status.FromString(refusal.details)
    assert (whole.code, whole.message) == (refusal.code.value[0], refusal.message)
    found = decoded(refusal.details)
    info = found.pop(details.ErrorInfo)
    assert isinstance(info, details.ErrorInfo)
    assert (info.domain, info.reason) == ("lessor", error.reason)
    [link] = cast("details.Help", found.pop(details.Help)).links
    page, _, anchor = link.url.partition("#")
    assert page.endswith("/docs/reasons.md")
    assert anchor == error.reason.lower()
    special = SPECIAL.get(error.kind)
    assert special is None or special in found


@pytest.mark.parametrize(("retry_in", "wanted"), [(None, 1.0), (0.25, 0.25), (90.0, 90.0)])
def test_a_retryable_error_has_a_delay(retry_in: float | None, wanted: float) -> None:
    kinds = [
        kind for kind in RAISED if kind.kind in (ErrorKind.UNAVAILABLE, ErrorKind.QUOTA, ErrorKind.ABORTED)
    ]
    assert kinds
    for kind in kinds:
        error = made(kind)
        error.retry_in = retry_in
        retry = decoded(status.error_status(error, sees_root=False).details)[details.RetryInfo]
        assert isinstance(retry, details.RetryInfo)
        assert retry.retry_delay.ToTimedelta().total_seconds() == wanted


def test_at_most_twenty_violations_are_returned() -> None:
    """The last one says how many are left out."""
    for count in (1, 20, 21, 5000):
        error = Invalid(tuple(Violation(f"f[{n}]", "is bad", "fix it") for n in range(count)))
        bad = decoded(status.error_status(error, sees_root=False).details)[details.BadRequest]
        assert isinstance(bad, details.BadRequest)
        assert len(bad.field_violations) == min(count, 20)
        assert bad.field_violations[0].field == "f[0]"
        assert bad.field_violations[0].description == "is bad; fix it"
        if count > 20:
            assert f"{count - 19} more" in bad.field_violations[-1].description
    huge = Invalid(tuple(Violation("f", "x" * 3000, "fix it") for _ in range(9)))
    assert len(status.error_status(huge, sees_root=False).details) < 12_000


def test_a_long_path_is_cut() -> None:
    """It may have the keys of a document, which are a caller's text."""
    refusal = status.error_status(Invalid((Violation("role." * 1000, "is bad", "fix it"),)), sees_root=False)
    bad = decoded(refusal.details)[details.BadRequest]
    assert isinstance(bad, details.BadRequest)
    assert len(bad.field_violations[0].field) == MAX_PATH
    assert len(refusal.message) < MAX_PATH + 30


def test_the_code_of_aws_is_shown_to_all_and_its_text_only_to_callers_who_may_read_the_root() -> None:
    error = AwsRefused(AwsAnswer("CreateUser", "Odd", "arn:aws:iam::1:user/x", "req-9"), Refusal.OTHER)
    for sees_root in (False, True):
        refusal = status.error_status(error, sees_root=sees_root)
        info = decoded(refusal.details)[details.ErrorInfo]
        assert isinstance(info, details.ErrorInfo)
        assert dict(info.metadata) == {
            "aws_action": "CreateUser",
            "aws_code": "Odd",
            "aws_request_id": "req-9",
        }
        assert (b"user/x" in refusal.details) is sees_root
        assert ("(AWS says: arn:aws:iam::1:user/x)" in refusal.message) is sees_root


def test_an_error_of_the_network_is_not_attributed_to_aws() -> None:
    text = "Failed to connect to proxy URL"
    error = AwsUnavailable("AWS CreateUser: ProxyConnectionError")
    error.aws = AwsAnswer("CreateUser", "ProxyConnectionError", text)
    message = status.error_status(error, sees_root=True).message
    assert message.endswith(f" (cause: {text})")
    assert "AWS says" not in message
