"""The errors of AWS calls: a refusal, or an unknown outcome."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from lessor_server.domain.errors.base import (
    AwsAnswer,
    AwsQuota,
    AwsUnavailable,
    ErrorKind,
    InternalError,
    LessorError,
)
from lessor_server.domain.errors.preconditions import (
    ClockRefused,
    PolicyTooLarge,
    RoleNotUsable,
    RootRefused,
    SessionTooLarge,
    SessionTooLong,
)

_CLOCK: Final = re.compile(r"RequestExpired|RequestTimeTooSkewed|Signature (?:expired|not yet current)")
"""AWS's codes and texts for a refused request time (IAM API Reference, "Common Errors")."""
_POLICY_SIZE: Final = re.compile(r"[Mm]aximum policy size|PolicySize")
_OF_ROLE: Final = re.compile(r"(?:Policies|Groups)PerUser")
"""Quotas of one user, which a single role can use up (IAM User Guide, "IAM and AWS STS quotas")."""

_NO_CREDENTIALS: Final = frozenset(("NoCredentialsError", "PartialCredentialsError"))
"""The SDK's codes if the server has found no credentials of its own: the root has no key to check."""
_GIVE_CREDENTIALS: Final = (
    "give the server's process AWS credentials of its own; if it has a source of them, such as a metadata"
    " service, that did not answer: call again later"
)


class Refusal(Enum):
    """The refusals of AWS that Lessor handles differently."""

    NO_SUCH_USER = "no_such_user"
    NO_SUCH_OTHER = "no_such_other"
    ALREADY_EXISTS = "already_exists"
    DELETE_CONFLICT = "delete_conflict"
    LIMIT = "limit"
    CONCURRENT = "concurrent"
    DENIED = "denied"
    THROTTLED = "throttled"
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    OTHER = "other"


class AwsError(LessorError):
    """An AWS call did not succeed."""

    def __init__(self, answer: AwsAnswer) -> None:
        """Keep AWS's answer, or the failure of the network."""
        super().__init__(f"AWS {answer.action}: {answer.code}", subject=answer.action)
        self.aws = answer


class AwsRefused(AwsError):
    """AWS refused the call, which had no effect."""

    kind = ErrorKind.PRECONDITION
    reason = "AWS_REFUSED"
    fix = "AWS's code says what it refused; check the root's policy and the role"

    def __init__(self, answer: AwsAnswer, refusal: Refusal) -> None:
        """Keep the kind of the refusal."""
        super().__init__(answer)
        self.refusal = refusal


class AwsUnknown(AwsError):
    """No clear answer came: the call may have taken effect, unless it was not ``sent``."""

    kind = ErrorKind.UNAVAILABLE
    reason = "AWS_ANSWER_UNKNOWN"
    fix = AwsUnavailable.fix

    def __init__(self, answer: AwsAnswer, *, sent: bool) -> None:
        """``sent`` says whether the request may have reached AWS."""
        super().__init__(answer)
        self.sent = sent


class AwsCallFailed(AwsUnknown):
    """A call ended in an unexpected error in Lessor: it may have taken effect."""

    kind = ErrorKind.INTERNAL
    reason = "AWS_CALL_FAILED"
    fix = LessorError.fix

    def __init__(self, action: str, reference: str) -> None:
        """Name the call's ``action``, and the ``reference`` under which the cause is in the log."""
        super().__init__(AwsAnswer(action, "InternalError"), sent=True)
        self.message = f"AWS {action}: internal error, reference {reference}"
        self.reference = reference


def for_caller(error: LessorError) -> LessorError:
    """Return the error that a caller gets for a failed AWS call: it names what to fix."""
    found = _classify(error)
    found.aws = error.aws
    return found


def _classify(error: LessorError) -> LessorError:
    if isinstance(error, AwsCallFailed):
        return InternalError(error.reference)
    if isinstance(error, AwsUnknown):
        return AwsUnavailable(error.message, retry_in=1.0)
    if not isinstance(error, AwsRefused):
        return error
    said = f"{error.aws.code}: {error.aws.text}" if error.aws else ""
    if _CLOCK.search(said):
        return ClockRefused(error.message, subject=error.subject)
    match error.refusal:
        case Refusal.LIMIT if _POLICY_SIZE.search(said):
            return PolicyTooLarge(error.message, subject=error.subject)
        case Refusal.LIMIT if _OF_ROLE.search(said):
            return RoleNotUsable(error.message, subject=error.subject)
        case Refusal.LIMIT:
            return AwsQuota(error.message, subject=error.subject)
        case Refusal.DENIED:
            fix = _GIVE_CREDENTIALS if error.aws and error.aws.code in _NO_CREDENTIALS else ""
            return RootRefused(error.message, subject=error.subject, fix=fix)
        case Refusal.TOO_LONG:
            return SessionTooLong(error.message, subject=error.subject)
        case Refusal.TOO_LARGE:
            return SessionTooLarge(error.message, subject=error.subject)
        case Refusal.MALFORMED | Refusal.NO_SUCH_OTHER:
            return RoleNotUsable(error.message, subject=error.subject)
        case Refusal.THROTTLED | Refusal.CONCURRENT | Refusal.NO_SUCH_USER:
            return AwsUnavailable(error.message, retry_in=1.0)
        case _:
            return error
