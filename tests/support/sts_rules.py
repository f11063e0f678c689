"""The rules of STS for durations, names, policies and tags of sessions, and for callers.

Sources, cited below by their last part: ``https://docs.aws.amazon.com/STS/latest/APIReference/API_…`` and
``…/IAM/latest/UserGuide/id_….html`` (id_session-tags, id_credentials_sts-comparison, id_roles).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tests.support.iam_rules import RefusalError, bad_token, check_document, check_tags, invalid
from tests.support.sts_state import Made, SessionKey

_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_FEDERATED_NAME = re.compile(r"[\w+=,.@-]{2,32}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_CODE = re.compile(r"[0-9]{6}")
_ARN_BYTES = 40

_STS_ACTIONS = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetFederationToken", "GetSessionToken"}


def denied(who: str, action: str, resource: str) -> RefusalError:
    """Return AccessDenied, 403, with the message of STS."""
    message = f"User: {who} is not authorized to perform: sts:{action} on resource: {resource}"
    return RefusalError(403, "AccessDenied", message)


def refused(message: str) -> RefusalError:
    """Return AccessDenied, 403, with this message."""
    return RefusalError(403, "AccessDenied", message)


def check_caller(action: str, session: SessionKey | None) -> None:
    """Refuse what sessions may not call (id_credentials_sts-comparison).

    Federated users call neither IAM nor STS but GetCallerIdentity; sessions of GetSessionToken call IAM only
    with MFA, and of STS AssumeRole and GetCallerIdentity; assumed roles make no such sessions in turn.
    """
    if session is None or action in ("GetCallerIdentity", "AssumeRoleWithWebIdentity"):
        return
    if action in ("GetFederationToken", "GetSessionToken"):
        raise refused(f"Cannot call {action} with session credentials")
    if session.made is Made.FEDERATED:
        raise denied(session.arn, action, "*") if action in _STS_ACTIONS else bad_token()
    if session.made is Made.SESSION_TOKEN and action not in _STS_ACTIONS and not session.with_mfa:
        raise bad_token()


def check_session_name(name: str, at: str = "roleSessionName") -> None:
    r"""Refuse a name outside ``[\w+=,.@-]{2,64}`` (API_AssumeRole)."""
    if not _SESSION_NAME.fullmatch(name):
        raise invalid(f"1 validation error detected: Value '{name}' at '{at}' failed to satisfy constraint")


def check_federated_name(name: str) -> None:
    r"""Refuse a name outside ``[\w+=,.@-]{2,32}`` (API_GetFederationToken)."""
    if not _FEDERATED_NAME.fullmatch(name):
        raise invalid(f"1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint")


def check_external_id(text: str) -> None:
    """Refuse a malformed external id (API_AssumeRole)."""
    if text and not _EXTERNAL_ID.fullmatch(text):
        raise invalid("1 validation error detected: Value at 'externalId' failed to satisfy constraint")


def duration(text: str, default: int, longest: int) -> int:
    """Return a duration in seconds, 900 to ``longest`` (API_AssumeRole, DurationSeconds)."""
    seconds = int(text) if text.isdecimal() else default if not text else 0
    if not 900 <= seconds <= longest:
        raise invalid(
            f"1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy constraint: "
            f"Member must have value between 900 and {longest}"
        )
    return seconds


def check_role_duration(seconds: int, longest: int, *, chained: bool) -> None:
    """Refuse a session longer than the role allows, or than 1 h if a session assumes it (id_roles)."""
    if chained and seconds > 3600:
        raise invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role "
            "chaining"
        )
    if seconds > longest:
        raise invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")


def check_code(code: str) -> None:
    """Refuse a code that is not six digits (API_AssumeRole, TokenCode)."""
    if not _CODE.fullmatch(code):
        raise invalid(
            "1 validation error detected: Value at 'tokenCode' failed to satisfy constraint: [0-9]{6}"
        )


def check_policies(policy: str, arns: Sequence[str]) -> None:
    """Refuse a session policy over 2,048 characters or malformed, and more than 10 ARNs (API_AssumeRole)."""
    if len(policy) > 2048:
        raise invalid(
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have "
            "length less than or equal to 2048"
        )
    if policy:
        check_document(policy)
    if len(arns) > 10:
        raise invalid("1 validation error detected: Value at 'policyArns' must have at most 10 items")


def check_session_tags(
    tags: Sequence[tuple[str, str]], transitive: Sequence[str], inherited: SessionKey | None
) -> None:
    """Refuse more than 50 tags, keys equal but for case, and keys that a session before passed on.

    A transitive tag cannot be set again further down the chain (id_session-tags, "Chaining roles").
    """
    check_tags(tags, 50)
    passed = set(inherited.transitive) if inherited else set()
    if passed & ({key for key, _ in tags} | set(transitive)):
        raise RefusalError(
            400,
            "InvalidParameterValue",
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive "
            "tag key from the calling session.",
        )
    if not set(transitive) <= {key for key, _ in tags}:
        raise RefusalError(
            400, "InvalidParameterValue", "The specified transitive tag key must be included in the tags."
        )


def packed_percent(policy: str, arns: Sequence[str], tags: Sequence[tuple[str, str]], limit: int) -> int:
    """Return how full the packed space is; PackedPolicyTooLarge above 100 (API_AssumeRole).

    AWS does not tell how it packs: here a policy counts its bytes, a tag its bytes, an ARN 40 bytes.
    """
    size = len(policy.encode()) + _ARN_BYTES * len(arns)
    size += sum(len(key.encode()) + len(value.encode()) for key, value in tags)
    percent = math.ceil(100 * size / limit)
    if percent > 100:
        message = f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
        raise RefusalError(400, "PackedPolicyTooLarge", message)
    return percent
