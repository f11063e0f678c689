"""Maps an error to a gRPC status with its details; nothing else does.

Sources: google.rpc.Status and error_details.proto; the gRPC guide "Error handling", richer error model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from lessor_server.domain.errors.base import MAX_PATH, ErrorKind, Invalid, LessorError
from lessor_server.engine.meter import current_trace_id

DOMAIN = "lessor"
REASONS_PAGE = "https://github.com/lessor-dev/lessor/blob/main/docs/reasons.md"
"""Has a heading for each reason."""
MAX_VIOLATIONS, MAX_BYTES = 20, 4096
MAX_DESCRIPTION = 512
"""The maximum length of a message that the details of a failed precondition repeat."""
MAX_REPEATED = 2_000
"""The maximum length of a message that the details repeat whole."""
DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """The wire form of an error."""

    code: grpc.StatusCode
    message: str
    details: bytes


def error_status(error: LessorError, *, sees_root: bool) -> ErrorStatus:
    """Return the status of ``error``; AWS's text and private parts only for callers that may see the root."""
    code = code_of(error.kind)
    private = f" ({error.private})" if error.private and sees_root else ""
    message = error.message if isinstance(error, Invalid) else f"{error.message}{private}; {error.fix}"
    if error.aws and error.aws.text and sees_root:
        # Without a request id the text is not AWS's, but of the network, a proxy or the SDK.
        source = "AWS says" if error.aws.request_id else "cause"
        message = f"{message} ({source}: {error.aws.text})"
    # Clients accept 8 KiB of metadata: of a long message the details have the beginning only.
    short = message if len(message) <= MAX_REPEATED else f"{message[:MAX_DESCRIPTION]}…"
    status = Status(code=code.value[0], message=short)
    for detail in (_info(error), *_details(error), _help(error)):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return ErrorStatus(code, message, status.SerializeToString())


def code_of(kind: ErrorKind) -> grpc.StatusCode:
    """Return the status code of a kind of error."""
    match kind:
        case ErrorKind.INVALID:
            return grpc.StatusCode.INVALID_ARGUMENT
        case ErrorKind.NOT_FOUND:
            return grpc.StatusCode.NOT_FOUND
        case ErrorKind.EXISTS:
            return grpc.StatusCode.ALREADY_EXISTS
        case ErrorKind.PRECONDITION:
            return grpc.StatusCode.FAILED_PRECONDITION
        case ErrorKind.QUOTA:
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case ErrorKind.UNAVAILABLE:
            return grpc.StatusCode.UNAVAILABLE
        case ErrorKind.ABORTED:
            return grpc.StatusCode.ABORTED
        case ErrorKind.UNAUTHENTICATED:
            return grpc.StatusCode.UNAUTHENTICATED
        case ErrorKind.DENIED:
            return grpc.StatusCode.PERMISSION_DENIED
        case ErrorKind.DEADLINE:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case ErrorKind.UNIMPLEMENTED:
            return grpc.StatusCode.UNIMPLEMENTED
        case ErrorKind.INTERNAL:
            return grpc.StatusCode.INTERNAL
    assert_never(kind)


def _info(error: LessorError) -> details.ErrorInfo:
    info = details.ErrorInfo(domain=DOMAIN, reason=error.reason)
    if error.aws:
        info.metadata["aws_action"] = error.aws.action
        info.metadata["aws_code"] = error.aws.code
        if error.aws.request_id:
            info.metadata["aws_request_id"] = error.aws.request_id
    if trace_id := current_trace_id.get():
        info.metadata["trace_id"] = trace_id
    return info


def _help(error: LessorError) -> details.Help:
    """Return the link to the reason, whose page has a heading for each."""
    link = details.Help.Link(description=error.reason, url=f"{REASONS_PAGE}#{error.reason.lower()}")
    return details.Help(links=[link])


def _details(error: LessorError) -> list[Message]:
    match error.kind:
        case ErrorKind.INVALID:
            return [_bad_request(error)]
        case ErrorKind.NOT_FOUND | ErrorKind.EXISTS:
            kind = str(getattr(error, "resource", ""))
            return [
                details.ResourceInfo(
                    resource_type=kind, resource_name=error.subject[:256], description=error.fix
                )
            ]
        case ErrorKind.PRECONDITION:
            violation = details.PreconditionFailure.Violation(
                type=error.reason,
                subject=error.subject,
                description=f"{error.message[:MAX_DESCRIPTION]}; {error.fix}",
            )
            return [details.PreconditionFailure(violations=[violation])]
        case ErrorKind.QUOTA:
            text = f"{error.message}; {error.fix}"
            quota = details.QuotaFailure.Violation(subject=error.subject, description=text)
            return [details.QuotaFailure(violations=[quota]), _retry(error)]
        case ErrorKind.UNAVAILABLE | ErrorKind.ABORTED:
            return [_retry(error)]
        case _:
            return []


def _retry(error: LessorError) -> details.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(int((error.retry_in or 1.0) * 1000))
    return details.RetryInfo(retry_delay=delay)


def _bad_request(error: LessorError) -> details.BadRequest:
    """Return the violations, at most 20 and 4 KiB of them; the last says how many more there are."""
    assert isinstance(error, Invalid)
    bad = details.BadRequest()
    size = 0
    for index, violation in enumerate(error.violations):
        text = f"{violation.problem}; {violation.fix}"
        field = violation.field[:MAX_PATH]
        size += len(field.encode()) + len(text.encode()) + 8
        left = len(error.violations) - index
        if left > 1 and (index == MAX_VIOLATIONS - 1 or size > MAX_BYTES - 128):
            bad.field_violations.add(field="", description=f"and {left} more; fix these first")
            break
        bad.field_violations.add(field=field, description=text)
    return bad
