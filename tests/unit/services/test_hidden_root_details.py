"""Checks that no error tells a caller of what it may not see of the root: endpoints, ARNs, accounts, files.

An error's own message goes further than its answer: it becomes a lease's ``last_error``, and what a watch
tells of a failure. So the message itself has to be free of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import botocore.exceptions as sdk
import pytest

from lessor_server.adapters.aws import assume_chain, error_codes, identity_token
from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.routes import Routes
from lessor_server.domain.aws.errors import AwsError, for_caller
from lessor_server.domain.aws.iam_calls import CreateAccessKey, CreateUser
from lessor_server.domain.aws.sts_calls import AssumeRole
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.root import Hop
from lessor_server.domain.token_places import TokenPlaces
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.issuing import lease_writer, sts_session
from lessor_server.services import status

ACCOUNT, HOST, FILE = "210987654321", "hidden.internal.test", "hidden-file"
ARN, URL = f"arn:aws:iam::{ACCOUNT}:role/hidden-role", f"https://{HOST}:8443"
HIDDEN = (ACCOUNT, HOST, FILE, "hidden-role", "hidden words")
USER = CreateUser("lessor-x", "/lessor/", "", ())
KEY = CreateAccessKey("lessor-x")
ASSUME = AssumeRole(ARN, "session", 900)
CODES = (
    "AccessDenied",
    "InvalidClientTokenId",
    "LimitExceeded",
    "MalformedPolicyDocument",
    "NoSuchEntity",
    "EntityAlreadyExists",
    "Throttling",
    "PackedPolicyTooLarge",
    "ServiceFailure",
    "SomethingNew",
)
NETWORK = (
    sdk.EndpointConnectionError(endpoint_url=URL),
    sdk.ConnectTimeoutError(endpoint_url=URL),
    sdk.ReadTimeoutError(endpoint_url=URL),
    sdk.SSLError(endpoint_url=URL, error="no"),
    sdk.ProxyConnectionError(proxy_url=URL),
    sdk.NoCredentialsError(),
    sdk.CredentialRetrievalError(provider=FILE, error_msg=f"{FILE}: {ARN}"),
    OSError(f"cannot read {FILE}"),
    TimeoutError(URL),
)


def said(code: str, call: object = USER, status_code: int = 400) -> AwsError:
    """Return what an answer of AWS becomes whose text names all that is hidden."""
    answer = {
        "Error": {"Code": code, "Message": f"{ARN} at {URL}: hidden words"},
        "ResponseMetadata": {"HTTPStatusCode": status_code, "RequestId": "1"},
    }
    return error_codes.from_sdk(call, sdk.ClientError(answer, "CreateUser"))  # type: ignore[arg-type]


async def of_endpoint(_: Path) -> LessorError:
    """Return the error of an endpoint that is not allowed any more."""
    with pytest.raises(LessorError) as raised:
        Routes(()).find("iam", Endpoint(URL, ""), token=False)
    return raised.value


def of_token(content: bytes | None, audience: str = "") -> Callable[[Path], Awaitable[LessorError]]:
    """Return what makes the error of a token's file with this content, of none where there is no file."""

    async def make(folder: Path) -> LessorError:
        path = folder / FILE
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LessorError) as raised:
            await identity_token.read_token(str(path), audience, TokenPlaces())
        return raised.value

    return make


@pytest.mark.parametrize(
    "make",
    [of_endpoint, of_token(None), of_token(b"x", "aud"), of_token(b""), of_token(b"\xff")],
    ids=["endpoint", "no file", "no token", "empty", "no text"],
)
async def test_problems_of_a_root_are_shown_only_to_callers_who_may_read_it(
    make: Callable[[Path], Awaitable[LessorError]], tmp_path: Path
) -> None:
    error = await make(tmp_path)
    keeps_quiet(error)
    assert error.detail
    assert error.detail in status.error_status(error, sees_root=True).message


def all_of_aws() -> dict[str, LessorError]:
    """Return every way in which a call to AWS fails, by a name for it."""
    made: dict[str, LessorError] = {}
    for code in CODES:
        for call in (USER, KEY, ASSUME):
            made[f"{code} of {call.action}"] = said(code, call)
    for error in NETWORK:
        made[type(error).__name__] = error_codes.from_network(USER, error)
        made[f"{type(error).__name__}, unsent"] = error_codes.unsent(USER, error)
    made["unreadable"] = error_codes.unreadable(USER, ValueError(f"hidden words at {URL}"))
    made["several places"] = error_codes.merge_endpoint_errors(
        [
            (Endpoint(URL, ""), said("ServiceFailure", status_code=500)),
            (Endpoint("", "eu"), said("AccessDenied")),
        ]
    )
    for code in ("AccessDenied", "ServiceFailure"):
        hop = assume_chain._at_hop(said(code, ASSUME), ASSUME, 0, Hop(ARN, "hidden words"))
        made[f"{code} of a hop"] = hop
    return made


@pytest.mark.parametrize("name", all_of_aws())
def test_the_text_of_aws_is_shown_only_to_callers_who_may_read_the_root(name: str) -> None:
    error = all_of_aws()[name]
    assert isinstance(error, AwsError)
    answer = [
        error,
        for_caller(error),
        lease_writer.to_caller_error(error),
        sts_session._to_caller_error(error, ASSUME),
    ]
    for one in answer:
        keeps_quiet(one)
        if error.detail:
            assert error.detail in status.error_status(one, sees_root=True).message


@pytest.mark.parametrize("name", all_of_aws())
async def test_the_error_of_a_paused_account_names_no_endpoint(name: str) -> None:
    limiter = RateLimiters(RateLimit()).limiter(f"aws:{ACCOUNT}", URL)
    limiter.pause(all_of_aws()[name].message, 1.0)
    with pytest.raises(LessorError) as raised:
        limiter.require_open()
    keeps_quiet(raised.value)


def keeps_quiet(error: LessorError) -> None:
    """Fail where an error shows anything hidden to a caller who may not see the root."""
    refusal = status.error_status(error, sees_root=False)
    shown = f"{error.message} {refusal.message} {refusal.details!r}"
    assert [word for word in HIDDEN if word in shown] == []
