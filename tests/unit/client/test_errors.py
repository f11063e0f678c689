"""Checks the typed errors that a client raises for the errors of a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from lessor import errors
from lessor.reasons import Reason
from lessor_server.domain.errors import base as domain
from lessor_server.domain.errors.base import AwsAnswer, LessorError
from lessor_server.services import status

ADDRESS = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Refused:
    """A failed call as gRPC raises it."""

    status_code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, bytes], ...] = ()

    def code(self) -> grpc.StatusCode:
        """Return the code."""
        return self.status_code

    def details(self) -> str:
        """Return the message."""
        return self.text

    def trailing_metadata(self) -> object:
        """Return the metadata."""
        return self.metadata


def sent(error: LessorError) -> errors.Error:
    """Return an error of the server's as it arrives."""
    answer = status.error_status(error, sees_root=True)
    return errors.of(Refused(answer.code, answer.message, ((status.DETAILS_KEY, answer.details),)), ADDRESS)


def test_a_reason_of_a_newer_server_keeps_its_name() -> None:
    info = error_details_pb2.ErrorInfo(domain="lessor", reason="TOO_SUNNY")
    answer = Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="too sunny; wait")
    answer.details.add().Pack(info)
    trailing = ((errors.DETAILS_KEY, answer.SerializeToString()),)
    found = errors.of(Refused(grpc.StatusCode.FAILED_PRECONDITION, "too sunny; wait", trailing), ADDRESS)
    assert isinstance(found, errors.Precondition)
    assert (found.reason, found.reason_name) == (Reason.UNKNOWN, "TOO_SUNNY")


def test_every_violation_has_its_field_and_fix() -> None:
    first = domain.Violation("role.name", "is empty", "give a name")
    second = domain.Violation("role.max_ttl", "is too long", "give less; 768h is the most")
    found = sent(domain.Invalid((first, second)))
    assert isinstance(found, errors.Invalid)
    assert found.reason == "INVALID_REQUEST"
    assert found.violations == (
        errors.Violation("role.name", "is empty", "give a name"),
        errors.Violation("role.max_ttl", "is too long", "give less; 768h is the most"),
    )
    assert str(found.violations[0]) == "role.name: is empty; give a name"


def test_a_not_found_error_has_its_fix() -> None:
    found = sent(domain.NotFound("role", "aws/app"))
    assert isinstance(found, errors.NotFound)
    assert found.fix == domain.NotFound.fix
    assert found.fix in found.message


def test_the_retry_delay_is_in_the_error() -> None:
    found = sent(domain.Draining("the server is stopping", retry_in=2.5))
    assert isinstance(found, errors.Unavailable)
    assert found.retry_after == timedelta(seconds=2.5)
    assert found.fix == domain.Draining.fix


def test_the_code_of_aws_is_in_the_error() -> None:
    refused = domain.Unauthenticated("no token")
    refused.aws = AwsAnswer("CreateUser", "LimitExceeded", "too many; far too many")
    found = sent(refused)
    assert isinstance(found, errors.Unauthenticated)
    assert found.aws_code == "LimitExceeded"
    assert found.fix == domain.Unauthenticated.fix
    assert "far too many" in found.message


def test_every_error_of_the_server_has_a_class_here() -> None:
    """Except INTERNAL, which is the base class."""
    codes = {status.code_of(kind) for kind in domain.ErrorKind} - {grpc.StatusCode.INTERNAL}
    assert {type(errors.of(Refused(code, ""), ADDRESS)) for code in codes} >= set(
        errors.Error.__subclasses__()
    )
    assert all(type(errors.of(Refused(code, ""), ADDRESS)) is not errors.Error for code in codes)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
            "can't reach a server at 127.0.0.1:1: Connection refused; start the server, or set LESSOR_ADDR",
        ),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "no answer from 127.0.0.1:1 in time; "),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            "Method not found!",
            "127.0.0.1:1 answered UNIMPLEMENTED: Method not found!; ",
        ),
        (grpc.StatusCode.UNKNOWN, "", "127.0.0.1:1 answered UNKNOWN: UNKNOWN; "),
    ],
)
def test_an_error_without_a_server_names_the_address(code: grpc.StatusCode, text: str, expected: str) -> None:
    found = errors.of(Refused(code, text), ADDRESS)
    assert found.message.startswith(expected)
    assert found.code is code
    assert found.reason_name == ""
    assert found.fix


@pytest.mark.parametrize("details", [b"", b"\xff\xff"])
def test_unreadable_details_still_give_the_right_class(details: bytes) -> None:
    found = errors.of(Refused(grpc.StatusCode.NOT_FOUND, "gone", ((errors.DETAILS_KEY, details),)), ADDRESS)
    assert isinstance(found, errors.NotFound)
