"""Errors of access: who the caller is, what it may do, and how much."""

from __future__ import annotations

from lessor_server.domain.errors.base import (
    PermissionDenied,
    Precondition,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)

HOW_TO_SEND = "send the metadata 'authorization: Bearer TOKEN' once, or call with a client certificate alone"
"""The fix for a call that has nothing that says who the caller is."""
WITHIN_RULE = "ask for what the rule allows, or have the rule's limit changed"
"""The fix for a request that a limit of a rule does not allow."""
HOW_TO_CHANGE = "choose another name, or have update on its path added to a policy of your identity"
"""The fix for a caller that may create an object, but not change the one that exists."""


class IssuerUnavailable(Unauthenticated):
    """The keys that would verify the caller's JWT are not known, and its issuer does not answer."""

    reason = "ISSUER_UNAVAILABLE"
    fix = "call again later; the operator's log says why the issuer's keys can't be read"


class TryLater(Unauthenticated):
    """Too many JWTs or login tokens that were not seen before have to be checked."""

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
        "revoke leases that are no longer used (those of sessions count until they expire), or have the"
        " rule's max_leases raised"
    )

    @classmethod
    def of(cls, pattern: str, limit: int) -> RuleFull:
        """Return the error of the rule with this pattern."""
        text = f"you have as many live leases as the rule {pattern} allows, {limit}"
        return cls(text, subject=f"rule/{pattern}")


class TooManyLoginTokens(QuotaExceeded):
    """The identity has its maximum number of live login tokens."""

    reason = "TOO_MANY_LOGIN_TOKENS"
    fix = "renew a login token instead of logging in again, or revoke those that are not used"

    @classmethod
    def of(cls, identity: str, limit: int) -> TooManyLoginTokens:
        """Return the error of this identity."""
        text = f"{identity} has as many live login tokens as an identity may have, {limit}"
        return cls(text, subject=f"identity/{identity}", retry_in=30.0)


class LoginNotPossible(Precondition):
    """The caller's credential can't be exchanged for a login token."""

    reason = "LOGIN_NOT_POSSIBLE"
    fix = "call with the credential itself, or log in with a JWT or a fixed token"


class TokenNotRenewable(Precondition):
    """The caller's token is not a login token, or one that was created as not renewable."""

    reason = "TOKEN_NOT_RENEWABLE"
    fix = "log in again when it ends; a fixed token and a JWT end when their issuer says"


class TokenNotRevocable(Precondition):
    """The caller's credential is not a login token, and only those can be revoked by a call."""

    reason = "TOKEN_NOT_REVOCABLE"
    fix = "remove its identity, or the digest of its token, from the access file and reload"


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

    def __init__(self) -> None:
        """Ask for another try in a second, as a sink is tried again then."""
        super().__init__("no audit sink can be written to", retry_in=1.0)
