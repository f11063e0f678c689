"""Errors of calls as typed exceptions: one class for each status code that Lessor returns.

Sources: google.rpc.Status and error_details.proto; the gRPC guide "Error handling", richer error model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as wire
from google.rpc.status_pb2 import Status

from lessor.reasons import Reason

DETAILS_KEY: Final = "grpc-status-details-bin"
_NOT_REACHED: Final = re.compile(
    r"failed to connect to all addresses; last error: (?:[A-Z_]+: )?(?:(?:ipv[46]|unix):\S+: )?"
)
_TLS_FIXES: Final = {
    "WRONG_VERSION_NUMBER": "the server does not use TLS: give it a certificate, or write http://HOST:PORT",
    "CERTIFICATE_VERIFY_FAILED": "set LESSOR_CACERT to the certificate of the server's authority",
    "Socket closed": "if the server uses TLS, write https:// and set LESSOR_CLIENT_CERT if it asks for one",
}
"""The fix of a failed handshake, by gRPC's message; a refusal by the server shows only as the last one."""


class Failure(Protocol):
    """The exception that gRPC raises for a failed call, blocking or async."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        ...

    def details(self) -> str | None:
        """Return the status message."""
        ...

    def trailing_metadata(self) -> object:
        """Return pairs of key and value, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Violation:
    """One problem of a request: the field, what is wrong, how to fix it."""

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.field}: {self.problem}; {self.fix}" if self.fix else f"{self.field}: {self.problem}"


@dataclass(eq=False)
class Error(Exception):
    """A call that did not succeed.

    Attributes:
        message: One line with the problem and its fix.
        code: gRPC's status code.
        reason_name: Its name for programs, ``UPPER_SNAKE``; empty if no Lessor server answered.
        violations: All problems of an invalid request.
        retry_after: When the same call may succeed; None if a retry does not help.
        fix: How to fix the problem.
        aws_code: AWS's error code if AWS refused the call; otherwise empty.
    """

    message: str
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason_name: str = ""
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    fix: str = ""
    aws_code: str = ""

    @property
    def reason(self) -> Reason:
        """Return the reason; UNKNOWN for one of a newer server, and if no Lessor server answered."""
        return Reason.__members__.get(self.reason_name, Reason.UNKNOWN)

    def __str__(self) -> str:
        """Say it in one line."""
        return self.message


class Invalid(Error):
    """The request breaks rules; ``violations`` has each of them."""


class NotFound(Error):
    """An object that the request names does not exist."""


class AlreadyExists(Error):
    """The object that the request would create already exists."""


class Precondition(Error):
    """The state of an object does not allow the call: a wrong etag, no root yet."""


class QuotaExceeded(Error):
    """A limit is reached: of the mount, the role or the AWS account."""


class Unavailable(Error):
    """The server or AWS can't be reached now."""


class Aborted(Error):
    """Another call changed the same object."""


class Unauthenticated(Error):
    """The token is missing or not known."""


class PermissionDenied(Error):
    """The caller is not allowed to do this."""


class DeadlineExceeded(Error):
    """The deadline passed; the call may have had an effect."""


class Unimplemented(Error):
    """This server does not implement the call."""


_CLASSES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: Precondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}


_DETAIL: Final = re.compile(r" \((?:AWS says|cause): ")
"""The start of AWS's or the network's own text in a message."""


def of(failure: Failure, address: str) -> Error:
    """Return the typed error of a failed call to the server at ``address``."""
    code = failure.code()
    status = _status(failure)
    if status is None:
        return _of_transport(code, failure.details() or "", address)
    error = _CLASSES.get(code, Error)(status.message, code)
    error.fix = _DETAIL.split(status.message, maxsplit=1)[0].partition("; ")[2]
    for detail in status.details:
        _read_detail(error, detail)
    return error


def _status(failure: Failure) -> Status | None:
    """Return the status with its details, None if no Lessor server answered."""
    pairs = failure.trailing_metadata()
    for key, value in pairs if isinstance(pairs, Iterable) else ():
        if key == DETAILS_KEY:
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _of_transport(code: grpc.StatusCode, text: str, address: str) -> Error:
    """Return the error of a call that no Lessor server answered: gRPC's text with a problem and a fix."""
    said = _NOT_REACHED.sub("", text).strip() or code.name
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            problem, fix = f"can't reach a server at {address}: {said}", _fix_of_connection(said)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            problem, fix = (
                f"no answer from {address} in time",
                "set a longer timeout; the call may have had an effect",
            )
        case _:
            problem, fix = (
                f"{address} answered {code.name}: {said}",
                "check that a Lessor server listens there",
            )
    return _CLASSES.get(code, Error)(f"{problem}; {fix}", code, fix=fix)


def _fix_of_connection(said: str) -> str:
    """Return the fix for a connection that failed with this message of gRPC."""
    return next(
        (fix for sign, fix in _TLS_FIXES.items() if sign in said), "start the server, or set LESSOR_ADDR"
    )


def _read_detail(error: Error, detail: object) -> None:
    """Copy one of the details into the error; details of other types are ignored."""
    info, bad, retry, resource = wire.ErrorInfo(), wire.BadRequest(), wire.RetryInfo(), wire.ResourceInfo()
    unpack = detail.Unpack  # type: ignore[attr-defined]
    if unpack(info):
        error.reason_name, error.aws_code = info.reason, info.metadata.get("aws_code", "")
    elif unpack(bad):
        error.violations = tuple(_violation(one.field, one.description) for one in bad.field_violations)
    elif unpack(retry):
        error.retry_after = retry.retry_delay.ToTimedelta()
    elif unpack(resource):
        error.fix = resource.description


def _violation(field: str, description: str) -> Violation:
    problem, _, fix = description.partition("; ")
    return Violation(field, problem, fix)
