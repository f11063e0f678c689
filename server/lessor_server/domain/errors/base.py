"""Every error that Lessor returns: its kind, its reason, and how to fix it.

The docstring of a class says when the error is raised. ``reason`` is its name for programs
(``ErrorInfo.reason``). ``fix`` says what the caller can do next.
``services/status.py`` turns a kind into a gRPC status; nothing else does.

    LessorError
    ├── Invalid            ├── NotFound, AlreadyExists
    ├── Precondition (preconditions.py)   ├── QuotaExceeded …
    ├── Unavailable …      ├── Aborted …
    ├── Unauthenticated, PermissionDenied, DeadlineExceeded, Unimplemented
    └── AwsError in domain/aws/errors.py: AwsRefused (AWS refused), AwsUnknown (it may have happened)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final

MAX_PATH = 256
"""The maximum length of a field's path in an answer: a path may contain a caller's keys."""
_SHOWN: Final = 64


class ErrorKind(Enum):
    """What a caller can do about an error; each kind is one gRPC status with its own details."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    PRECONDITION = "precondition"
    QUOTA = "quota"
    UNAVAILABLE = "unavailable"
    ABORTED = "aborted"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    DEADLINE = "deadline"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Violation:
    """One problem of a request: the field, what is wrong, how to fix it.

    ``field`` is a path that begins at the request: ``role.policy_document.Statement[0].Effect``.
    """

    field: str
    problem: str
    fix: str

    def under(self, prefix: str) -> Violation:
        """Return the same violation with its path below ``prefix``."""
        return Violation(f"{prefix}.{self.field}" if self.field else prefix, self.problem, self.fix)


def shown(text: str) -> str:
    """Return a caller's text for a message: quoted, on one line, cut to 64 characters."""
    cut = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return '"' + "".join(letter if letter.isprintable() else "�" for letter in cut) + '"'


def too_long(field: str, text: str, limit: int) -> Violation:
    """Return the violation of a text that has more than ``limit`` characters."""
    return Violation(field, f"has {len(text)} characters", f"give at most {limit}")


@dataclass(frozen=True, slots=True)
class AwsAnswer:
    """AWS's answer; ``text`` is shown only to callers that may see the root."""

    action: str
    code: str
    text: str = ""
    request_id: str = ""


class LessorError(Exception):
    """The base of every error that may reach a caller."""

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    fix: str = "report the reference to the operator, whose log has the cause"

    def __init__(
        self,
        message: str,
        *,
        subject: str = "",
        retry_in: float | None = None,
        private: str = "",
        fix: str = "",
    ) -> None:
        """Describe the error in ``message`` and name its object in ``subject``; ``retry_in`` is in seconds.

        ``private`` is shown only to callers that may see the root: its endpoint, its files. ``fix`` is the
        fix if that of the class does not fit.
        """
        super().__init__(message)
        self.private = private
        self.message = message
        self.subject = subject
        self.retry_in = retry_in
        self.aws: AwsAnswer | None = None
        if fix:
            self.fix = fix

    @property
    def detail(self) -> str:
        """Return AWS's text or the private part, for the log and for callers that may see the root."""
        return self.aws.text if self.aws else self.private


class InternalError(LessorError):
    """An unexpected error occurred; the log has its cause under the reference in the message."""

    reason = "INTERNAL"

    def __init__(self, reference: str) -> None:
        """Name the ``reference`` under which the cause is in the log."""
        super().__init__(f"internal error, reference {reference}")
        self.reference = reference


class RowUnreadable(LessorError):
    """The call needs a row of the store that is damaged, or that Lessor did not write."""

    reason = "ROW_UNREADABLE"
    fix = "report it to the operator, whose log names the column; a role or a root can be written again"

    def __init__(self, table: str, key: str, problem: str) -> None:
        """Name the row by its ``table`` and ``key``; ``problem`` does not contain its values."""
        super().__init__(f"row {key} of {table} cannot be read", subject=key, private=problem)
        self.table = table
        self.key = key


# --- the request itself -------------------------------------------------------------------------


class Invalid(LessorError):
    """The request breaks one or more rules; the violations list each of them."""

    kind = ErrorKind.INVALID
    reason = "INVALID_REQUEST"
    fix = "correct the fields that the violations name"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        """Keep all violations of the request; at least one."""
        first = violations[0]
        super().__init__(f"{first.field[:MAX_PATH]}: {first.problem}; {first.fix}")
        self.violations = violations


class RequestIdReused(Invalid):
    """The request id was already used for a different request."""

    reason = "REQUEST_ID_REUSED"
    fix = "send a new request_id for each different request"

    def __init__(self, request_id: str) -> None:
        """Name the id."""
        problem = f"{request_id} named another request"
        super().__init__((Violation("request_id", problem, self.fix),))


class SessionPolicyWouldWiden(Invalid):
    """The request's session_policy allows something, which AWS would add to what the role allows."""

    reason = "SESSION_POLICY_WOULD_WIDEN"
    fix = "send Deny statements only, or use a role without policies of its own"

    def __init__(self, role: str, others: tuple[Violation, ...] = ()) -> None:
        """Name the role; ``others`` are further violations of the request."""
        problem = f"allows something, and role {role} has policies of its own, which AWS combines with it"
        super().__init__((Violation("session_policy", problem, self.fix), *others))


def require(violations: Iterable[Violation]) -> None:
    """Raise ``Invalid`` with all of ``violations``, if there are any."""
    if found := tuple(violations):
        raise Invalid(found)


class NotFound(LessorError):
    """The object that the request names does not exist."""

    kind = ErrorKind.NOT_FOUND
    reason = "NOT_FOUND"
    fix = "check the name; the list call of the same service shows what exists"

    def __init__(self, resource: str, name: str, *, ended: bool = False, fix: str = "") -> None:
        """Name the missing ``resource`` (mount, role, root, lease); ``ended``: it existed."""
        text = f"{resource} {name[:64]!r} has ended" if ended else f"no {resource} {name[:64]!r}"
        super().__init__(text, subject=name, fix=fix)
        self.resource = resource


class AlreadyExists(LessorError):
    """The object that the request would create exists already."""

    kind = ErrorKind.EXISTS
    reason = "ALREADY_EXISTS"
    fix = "choose another name, or change the one that exists"

    def __init__(self, resource: str, name: str, *, fix: str = "") -> None:
        """Name the ``resource`` that exists."""
        super().__init__(f"{resource} {name[:64]!r} exists already", subject=name, fix=fix)
        self.resource = resource


# --- the state of an object ------------------------------------------------------------------


class Precondition(LessorError):
    """The state of an object does not allow the call; each subclass names the state."""

    kind = ErrorKind.PRECONDITION
    reason = "FAILED_PRECONDITION"
    fix = "change the state that the message names, then call again"


# --- limits -----------------------------------------------------------------------------


class QuotaExceeded(LessorError):
    """A limit on live leases, or one of AWS's own quotas, is reached."""

    kind = ErrorKind.QUOTA
    reason = "QUOTA_EXCEEDED"
    fix = "revoke what is no longer used, or raise the limit that the message names"


class MountFull(QuotaExceeded):
    """The mount has as many IAM users as its max_users allows."""

    reason = "MOUNT_MAX_USERS"


class RoleFull(QuotaExceeded):
    """The role has as many live leases as its max_leases allows."""

    reason = "ROLE_MAX_LEASES"


class AwsQuota(QuotaExceeded):
    """AWS answered LimitExceeded: a quota of the account is used up."""

    reason = "AWS_LIMIT_EXCEEDED"
    fix = "delete what counts towards the quota in AWS's answer, or have the quota raised"


class RateLimiterFull(QuotaExceeded):
    """The queue of AWS calls is full."""

    reason = "PACER_QUEUE_FULL"
    fix = "call again later; raise aws.rate if AWS allows the account more"


class TooManyCalls(QuotaExceeded):
    """The server, or the connection, has its maximum number of calls in progress."""

    reason = "TOO_MANY_CALLS"
    fix = "call again later, or end calls that are not needed"


# --- temporary errors ------------------------------------------------------------------------------


class Unavailable(LessorError):
    """A dependency of the call does not answer now."""

    kind = ErrorKind.UNAVAILABLE
    reason = "UNAVAILABLE"
    fix = "call again later"


class AwsUnavailable(Unavailable):
    """AWS cannot be reached, throttles, or its answer was lost; the account is checked again later."""

    reason = "AWS_UNAVAILABLE"
    fix = "call again later; if it lasts, check the endpoint and the network from the server to AWS"


class KeyNotAccepted(Unavailable):
    """AWS did not accept a new access key in time; the key is deleted, and the old one stays in use."""

    reason = "KEY_NOT_ACCEPTED"
    fix = "call again later; if it lasts, check whether a policy denies the user sts or iam"


class StaticKeyPending(Unavailable):
    """The static role has no access key yet: its first rotation is retried automatically."""

    reason = "STATIC_KEY_PENDING"
    fix = "call again later; the log shows why the first rotation fails"


class StoreUnavailable(Unavailable):
    """The store cannot write: its disk is full or failing, or its database does not answer."""

    reason = "STORE_UNAVAILABLE"
    fix = "free space on the disk of the data directory or database, or repair it; nothing was half written"


class Draining(Unavailable):
    """The server is stopping and accepts no new work."""

    reason = "DRAINING"
    fix = "call again; the server is restarting"


class Aborted(LessorError):
    """Another call changed the same object; this call had no lasting effect."""

    kind = ErrorKind.ABORTED
    reason = "ABORTED"
    fix = "call again"


class LeaseTaken(Aborted):
    """The lease was revoked while it was being issued."""

    reason = "LEASE_REVOKED_WHILE_ISSUED"


class RootChanged(Aborted):
    """The mount's root was set again, or its key rotated, after this call had read it."""

    reason = "ROOT_CHANGED"


class FellBehind(Aborted):
    """A watcher read events more slowly than they occurred, so some were dropped."""

    reason = "WATCH_FELL_BEHIND"
    fix = "list the leases and watch again"


class DeadlineExceeded(LessorError):
    """The caller's deadline has passed, or leaves too little time for the work."""

    kind = ErrorKind.DEADLINE
    reason = "DEADLINE_EXCEEDED"
    fix = "call again with a longer deadline"


# --- the caller and its permissions -------------------------------------------------------------------------


class Unauthenticated(LessorError):
    """The caller sent no credential, or one that is not accepted."""

    kind = ErrorKind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"
    fix = "get a new credential, or have the access file accept this one"


class PermissionDenied(LessorError):
    """The caller is known, and no policy allows the call."""

    kind = ErrorKind.DENIED
    reason = "PERMISSION_DENIED"
    fix = (
        "have a rule with this capability on this path added to a policy of your identity;"
        " `lessor policy test` shows which rule decides"
    )


class Unimplemented(LessorError):
    """This version does not support the call or the field."""

    kind = ErrorKind.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"
    fix = "use a server that supports it, or leave out the field that is named"
