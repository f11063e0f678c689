"""Maps failures of botocore and the network to our errors, so that only these leave the adapter.

Sources: IAM and STS API Reference, "Common Errors" and each operation's "Errors"; botocore ``exceptions``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import botocore.exceptions as sdk

from lessor_server.adapters.aws.http_connection import NotAnAnswer, NotSent
from lessor_server.domain.aws.errors import AwsError, AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import Call, VerifyKeyOnIam
from lessor_server.domain.errors.base import AwsAnswer

REGION_DISABLED = "RegionDisabledException"
"""The account has disabled STS in that region; another region may work."""

_CODES = {
    "EntityAlreadyExists": Refusal.ALREADY_EXISTS,
    "DeleteConflict": Refusal.DELETE_CONFLICT,
    "LimitExceeded": Refusal.LIMIT,
    "ConcurrentModification": Refusal.CONCURRENT,
    "ConcurrentModificationException": Refusal.CONCURRENT,
    "EntityTemporarilyUnmodifiable": Refusal.CONCURRENT,
    "AccessDenied": Refusal.DENIED,
    "AccessDeniedException": Refusal.DENIED,
    "UnauthorizedOperation": Refusal.DENIED,
    "InvalidClientTokenId": Refusal.DENIED,
    "UnrecognizedClientException": Refusal.DENIED,
    "AuthFailure": Refusal.DENIED,
    "SignatureDoesNotMatch": Refusal.DENIED,
    "IncompleteSignature": Refusal.DENIED,
    "MissingAuthenticationToken": Refusal.DENIED,
    "ExpiredToken": Refusal.DENIED,
    "ExpiredTokenException": Refusal.DENIED,
    "InvalidIdentityToken": Refusal.DENIED,
    "IDPRejectedClaim": Refusal.DENIED,
    REGION_DISABLED: Refusal.DENIED,
    "OptInRequired": Refusal.DENIED,
    "MalformedPolicyDocument": Refusal.MALFORMED,
    "InvalidInput": Refusal.MALFORMED,
    "ValidationError": Refusal.MALFORMED,
    "PackedPolicyTooLarge": Refusal.TOO_LARGE,
    "PolicyNotAttachable": Refusal.MALFORMED,
    "UnmodifiableEntity": Refusal.MALFORMED,
    "Throttling": Refusal.THROTTLED,
    "ThrottlingException": Refusal.THROTTLED,
    "ThrottledException": Refusal.THROTTLED,
    "RequestThrottled": Refusal.THROTTLED,
    "RequestThrottledException": Refusal.THROTTLED,
    "RequestLimitExceeded": Refusal.THROTTLED,
    "TooManyRequestsException": Refusal.THROTTLED,
    "SlowDown": Refusal.THROTTLED,
    "PriorRequestNotComplete": Refusal.THROTTLED,
    "BandwidthLimitExceeded": Refusal.THROTTLED,
}

_TOO_LONG = re.compile(r"MaxSessionDuration|DurationSeconds exceeds")
"""The text of a ValidationError if AWS creates no session of the requested duration (API_AssumeRole)."""

_TRANSIENT = "IDPCommunicationError"
"""STS did not reach the identity provider; a retry is allowed (API_AssumeRoleWithWebIdentity)."""

_NEVER_SENT = (
    NotSent,
    sdk.EndpointConnectionError,
    sdk.ConnectTimeoutError,
    sdk.ProxyConnectionError,
    sdk.SSLError,
)
"""Errors after which AWS has not received the request: ``HttpClient`` raises them while connecting."""

_NO_CREDENTIALS = (sdk.NoCredentialsError, sdk.PartialCredentialsError)
"""The server has no credentials of its own to sign with, so nothing was sent."""

_TEXT_LIMIT = 500
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
OWN_CREDENTIALS = "credentials of the server"
"""The action in errors about the server's own credentials, if no call can get them."""
UNREADABLE = "UnreadableAnswer"
"""The code for a response that is not AWS's; the text has its HTTP status."""


def from_sdk(call: Call[object], error: sdk.ClientError) -> AwsError:
    """Map an error answer of AWS to the error of ``call``."""
    told = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code, text = str(told.get("Code", "")), str(told.get("Message", ""))[:_TEXT_LIMIT]
    status = int(meta.get("HTTPStatusCode", 0))
    answer = AwsAnswer(call.action, code, text, valid_request_id(meta))
    if status >= 500 and _CODES.get(code) is not Refusal.THROTTLED:
        return AwsUnknown(answer, sent=True)  # it failed in AWS, so it may have taken effect
    if code.startswith("NoSuchEntity"):
        missing = Refusal.NO_SUCH_USER if call.user and call.user in text else Refusal.NO_SUCH_OTHER
        return AwsRefused(answer, missing)
    refusal = _CODES.get(code)
    if refusal is Refusal.MALFORMED and _TOO_LONG.search(text):
        return AwsRefused(answer, Refusal.TOO_LONG)
    if refusal is not None:
        return AwsRefused(answer, refusal)
    if status == 429:
        return AwsRefused(answer, Refusal.THROTTLED)
    if 400 <= status < 500 and code != _TRANSIENT:
        return AwsRefused(answer, Refusal.OTHER)
    return AwsUnknown(answer, sent=True)


def valid_request_id(meta: Mapping[str, object]) -> str:
    """Return AWS's request id, or nothing if the value is not one."""
    said = str(meta.get("RequestId", ""))
    return said if _REQUEST_ID.fullmatch(said) else ""


def proves(call: Call[object], error: AwsError) -> bool:
    """Return whether a refusal already verifies what ``call`` checks.

    AWS authenticates before it authorises (IAM User Guide, "How permissions and policies provide access
    management"): a key that is denied an action was accepted.
    """
    return isinstance(call, VerifyKeyOnIam) and error.aws is not None and error.aws.code == "AccessDenied"


def is_expired(error: AwsRefused) -> bool:
    """Return whether AWS refused because the session that signed has ended."""
    return error.aws is not None and error.aws.code in ("ExpiredToken", "ExpiredTokenException")


def is_endpoint_specific(error: AwsError) -> bool:
    """Return whether another endpoint of the service may work: this one did not answer, or is disabled."""
    return isinstance(error, AwsUnknown) or (error.aws is not None and error.aws.code == REGION_DISABLED)


def merge_endpoint_errors(failed: Sequence[tuple[object, AwsError]]) -> AwsError:
    """Return the error if every endpoint failed: an unknown fate before a refusal, each cause in the text."""
    errors = [error for _, error in failed]
    if len(errors) == 1:
        return errors[0]
    worst = next((error for error in errors if isinstance(error, AwsUnknown)), errors[-1])
    said = [(endpoint, error.aws) for endpoint, error in failed if error.aws is not None]
    text = "; ".join(f"{endpoint}: {one.code} {one.text}".strip() for endpoint, one in said)
    answer = replace(worst.aws or said[-1][1], text=text[: _TEXT_LIMIT * 2])
    if isinstance(worst, AwsUnknown):
        sent = any(isinstance(error, AwsUnknown) and error.sent for error in errors)
        return AwsUnknown(answer, sent=sent)
    return AwsRefused(answer, Refusal.DENIED)


def from_network(call: Call[object], error: Exception) -> AwsError:
    """Map a failure without an answer of AWS to the error of ``call``."""
    if isinstance(error, NotAnAnswer):
        return AwsUnknown(AwsAnswer(call.action, UNREADABLE, str(error)), sent=error.sent)
    answer = AwsAnswer(call.action, type(error).__name__, str(error)[:_TEXT_LIMIT])
    if isinstance(error, sdk.ParamValidationError):
        return AwsRefused(answer, Refusal.MALFORMED)
    return AwsUnknown(answer, sent=not isinstance(error, _NEVER_SENT))


def unreadable(call: Call[object], error: Exception) -> AwsUnknown:
    """Map an unreadable answer to the error of ``call``."""
    # Without its text: a parser's text has the answer, which may contain a secret.
    text = f"the answer cannot be read ({type(error).__name__})"
    return AwsUnknown(AwsAnswer(call.action, UNREADABLE, text), sent=True)


def unsigned(call: Call[object], error: Exception) -> AwsError:
    """Return the error of ``call`` if the server's own credentials could not be fetched.

    It names their source: the action of the SDK's call, or the address that answered.
    """
    failure = unsent(call, error)
    said = failure.aws or AwsAnswer(call.action, type(error).__name__)
    action = error.operation_name if isinstance(error, sdk.ClientError) else OWN_CREDENTIALS
    origin = error.origin if isinstance(error, NotAnAnswer) else ""
    answer = replace(said, action=action, text=f"{origin}: {said.text}" if origin else said.text)
    if isinstance(failure, AwsRefused):
        return AwsRefused(answer, failure.refusal)
    return AwsUnknown(answer, sent=False)


def unsent(call: Call[object], error: Exception) -> AwsError:
    """Return the error of ``call`` if its client could not be created, or it could not be signed.

    AWS may have refused the server its own credentials, but it has not refused ``call``.
    """
    answer = AwsAnswer(call.action, type(error).__name__, str(error)[:_TEXT_LIMIT])
    if isinstance(error, _NO_CREDENTIALS):
        return AwsRefused(answer, Refusal.DENIED)
    if isinstance(error, NotAnAnswer):
        answer = replace(answer, code=UNREADABLE)
    if isinstance(error, sdk.ClientError):
        inner = from_sdk(call, error)
        answer = replace(inner.aws or answer, text=str(error)[:_TEXT_LIMIT])
        if isinstance(inner, AwsRefused) and inner.refusal is Refusal.DENIED:
            return AwsRefused(answer, Refusal.DENIED)
    return AwsUnknown(answer, sent=False)
