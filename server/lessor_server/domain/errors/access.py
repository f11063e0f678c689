"""Errors of access: who the caller is, what it may do, and how much."""

from __future__ import annotations

from lessor_server.domain.errors.base import (
    PermissionDenied,
    Precondition,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)


class IssuerUnavailable(Unauthenticated):
    """The keys that would verify the caller's JWT are not known, and its issuer does not answer."""

    reason = "ISSUER_UNAVAILABLE"
    fix = "call again later; the operator's log says why the issuer's keys can't be read"


class TryLater(Unauthenticated):
    """Too many JWTs that were not seen before have to be verified."""

    reason = "TRY_LATER"
    fix = "call again in a second, with the same token"


class NotYourLease(PermissionDenied):
    """The lease belongs to another caller, or does not exist."""

    reason = "NOT_YOUR_LEASE"
    fix = "check the lease id; the leases of others need a rule on sys/leases/"


class RateLimited(QuotaExceeded):
    """The caller makes more calls per second than limits.rate_per_identity."""

    reason = "RATE_LIMITED"
    fix = "make fewer calls per second, or have limits.rate_per_identity raised"


class TooManyWatches(QuotaExceeded):
    """The caller has its maximum number of unbounded streams."""

    reason = "TOO_MANY_WATCHES"
    fix = "end streams that are not needed, or have limits.watches_per_identity raised"


class RuleFull(QuotaExceeded):
    """The caller has as many live leases as the rule that admits it allows."""

    reason = "RULE_MAX_LEASES"
    fix = (
        "revoke what is no longer used (a session counts until AWS ends it), or have the rule's limit raised"
    )

    @classmethod
    def of(cls, pattern: str, limit: int) -> RuleFull:
        """Return the error of the rule with this pattern."""
        return cls(f"the rule {pattern} allows you {limit} live leases", subject=f"rule/{pattern}")


class NoAccessFile(Precondition):
    """The access file is to be read again, and the server has none."""

    reason = "NO_ACCESS_FILE"
    fix = "set access.file and restart the server"


class AccessFileInvalid(Precondition):
    """The access file has errors, so the previous rules stay in force."""

    reason = "ACCESS_FILE_INVALID"
    fix = "correct the access file, check it with lessor access check, and reload again"


class AuditUnavailable(Unavailable):
    """No audit sink works, so nothing is issued or changed, and the root is not shown; revocations go on."""

    reason = "AUDIT_UNAVAILABLE"
    fix = "call again later; the operator's log says why the audit records can't be written"
