"""Checks with a real client that the stand-in's STS has AWS's rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
import pytest
from botocore.config import Config
from tests.conformance.test_iam_model import POLICY, Client, refused
from tests.support.standin_control import StandIn

KEY = "AKIATESTROOT0EXAMPLE"
SESSION = aioboto3.Session(region_name="us-east-1")
MFA = "arn:aws:iam::123456789012:mfa/phone"
NAME = {"RoleSessionName": "app"}


class Clients:
    """Opens real clients that sign with a key or a session."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        """Open them at ``url`` for as long as ``stack``."""
        self._url = url
        self._stack = stack

    async def __call__(self, service: str, session: dict[str, Any] | None = None) -> Client:
        """Open a client of a service that signs with the root's key, or with this session."""
        made = session or {"AccessKeyId": KEY, "SecretAccessKey": "x", "SessionToken": None}
        sdk = SESSION.client(
            service,
            endpoint_url=self._url,
            config=Config(retries={"total_max_attempts": 1}),
            aws_access_key_id=made["AccessKeyId"],
            aws_secret_access_key=made["SecretAccessKey"],
            aws_session_token=made["SessionToken"],
        )
        client: Client = await self._stack.enter_async_context(sdk)
        return client


@pytest.fixture
async def clients(aws: StandIn) -> AsyncIterator[Clients]:
    """Open clients."""
    async with AsyncExitStack() as stack:
        yield Clients(aws.url, stack)


@pytest.fixture
async def sts(clients: Clients) -> Client:
    """Open a client of STS that signs with the root's key."""
    return await clients("sts")


async def session(call: Any) -> dict[str, Any]:
    """Return the credentials that a call made."""
    made: dict[str, Any] = (await call)["Credentials"]
    return made


# --- what a role's trust asks for -------------------------------------------------------------------------


async def test_a_role_is_assumed_only_by_whom_it_trusts(aws: StandIn, clients: Clients, sts: Client) -> None:
    for trusted in ("*", "123456789012", "arn:aws:iam::123456789012:user/root-of-lessor"):
        arn = await aws.role("worker", trusts=[trusted])
        made = await sts.assume_role(RoleArn=arn, **NAME)
        assert made["AssumedRoleUser"]["Arn"] == "arn:aws:sts::123456789012:assumed-role/worker/app"
    inner = await aws.role("inner", trusts=[arn])
    assert await refused(sts.assume_role(RoleArn=inner, **NAME)) == ("AccessDenied", 403)
    worker = await clients("sts", made["Credentials"])
    assert await worker.assume_role(RoleArn=inner, **NAME)


async def test_an_external_id_must_be_the_role_s(aws: StandIn, sts: Client) -> None:
    arn = await aws.role("worker", external_id="sesame")
    assert await refused(sts.assume_role(RoleArn=arn, **NAME)) == ("AccessDenied", 403)
    assert await refused(sts.assume_role(RoleArn=arn, ExternalId="other", **NAME)) == ("AccessDenied", 403)
    assert await refused(sts.assume_role(RoleArn=arn, ExternalId="a b", **NAME)) == ("ValidationError", 400)
    assert await sts.assume_role(RoleArn=arn, ExternalId="sesame", **NAME)


async def test_an_mfa_code_is_valid_once(aws: StandIn, sts: Client) -> None:
    arn = await aws.role("careful", needs_mfa=True)
    await aws.sts(mfa_codes={MFA: "123456"})
    ask = {"RoleArn": arn, "SerialNumber": MFA, **NAME}
    assert await refused(sts.assume_role(RoleArn=arn, **NAME)) == ("AccessDenied", 403)
    assert await refused(sts.assume_role(TokenCode="000000", **ask)) == ("AccessDenied", 403)
    assert await refused(sts.assume_role(TokenCode="12345x", **ask)) == ("ValidationError", 400)
    assert await sts.assume_role(TokenCode="123456", **ask)
    assert await refused(sts.assume_role(TokenCode="123456", **ask)) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"DurationSeconds": 899}, None),
        ({"DurationSeconds": 3601}, "ValidationError"),
        ({"Policy": POLICY.replace("2012", "2011")}, "MalformedPolicyDocument"),
        ({"PolicyArns": [{"arn": f"arn:aws:iam::aws:policy/{n}"} for n in range(11)]}, "ValidationError"),
        ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}]}, "InvalidInput"),
        ({"Tags": [{"Key": "k", "Value": "v" * 256}] * 1, "Policy": POLICY}, "PackedPolicyTooLarge"),
        ({"TransitiveTagKeys": ["team"]}, "InvalidParameterValue"),
    ],
)
async def test_an_invalid_session_is_refused_with_aws_s_code(
    aws: StandIn, sts: Client, asked: dict[str, Any], code: str | None
) -> None:
    arn = await aws.role("worker")
    await aws.sts(packed_limit=300)
    if code is None:  # botocore itself knows the floor of 900 s
        with pytest.raises(Exception, match="DurationSeconds"):
            await sts.assume_role(RoleArn=arn, **NAME, **asked)
        return
    assert (await refused(sts.assume_role(RoleArn=arn, **NAME, **asked)))[0] == code


async def test_a_session_assumed_by_a_role_lasts_at_most_an_hour(
    aws: StandIn, clients: Clients, sts: Client
) -> None:
    """In a role chain MaxSessionDuration does not count."""
    first, second = await aws.role("first"), await aws.role("second", longest=43_200)
    assert await sts.assume_role(RoleArn=second, DurationSeconds=43_200, **NAME)
    chained = await clients("sts", await session(sts.assume_role(RoleArn=first, **NAME)))
    assert await chained.assume_role(RoleArn=second, DurationSeconds=3600, **NAME)
    longer = chained.assume_role(RoleArn=second, DurationSeconds=3601, **NAME)
    assert await refused(longer) == ("ValidationError", 400)


async def test_transitive_tags_and_the_source_identity_are_passed_on(
    aws: StandIn, clients: Clients, sts: Client
) -> None:
    first, second = await aws.role("first"), await aws.role("second")
    tags = [{"Key": "team", "Value": "blue"}, {"Key": "stage", "Value": "test"}]
    made = await session(
        sts.assume_role(RoleArn=first, Tags=tags, TransitiveTagKeys=["team"], SourceIdentity="alice", **NAME)
    )
    chained = await clients("sts", made)
    last = await session(chained.assume_role(RoleArn=second, **NAME))
    kept = await aws.session(last["AccessKeyId"])
    assert (kept["tags"], kept["source_identity"]) == ([["team", "blue"]], "alice")
    again = chained.assume_role(RoleArn=second, Tags=tags[:1], **NAME)
    assert await refused(again) == ("InvalidParameterValue", 400)
    other = chained.assume_role(RoleArn=second, SourceIdentity="bob", **NAME)
    assert await refused(other) == ("AccessDenied", 403)


async def test_a_role_may_refuse_tags(aws: StandIn, sts: Client) -> None:
    """A trust policy without sts:TagSession denies a session with tags."""
    arn = await aws.role("plain", takes_tags=False)
    tagged = sts.assume_role(RoleArn=arn, Tags=[{"Key": "team", "Value": "blue"}], **NAME)
    assert await refused(tagged) == ("AccessDenied", 403)


# --- who may ask for what ---------------------------------------------------------------------------------


async def test_temporary_credentials_call_neither_get_federation_token_nor_get_session_token(
    aws: StandIn, clients: Clients, sts: Client
) -> None:
    made = [
        await session(sts.assume_role(RoleArn=await aws.role("worker"), **NAME)),
        await session(sts.get_federation_token(Name="ann")),
        await session(sts.get_session_token()),
    ]
    for one in made:
        signed = await clients("sts", one)
        assert await refused(signed.get_federation_token(Name="bob")) == ("AccessDenied", 403)
        assert await refused(signed.get_session_token()) == ("AccessDenied", 403)
    await aws.sts(root_arn="arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0")
    assert await refused(sts.get_session_token()) == ("AccessDenied", 403)


async def test_federated_users_call_neither_iam_nor_sts(clients: Clients, sts: Client) -> None:
    """Except GetCallerIdentity."""
    made = await session(sts.get_federation_token(Name="ann", Policy=POLICY))
    iam, signed = await clients("iam", made), await clients("sts", made)
    assert await refused(iam.list_users()) == ("InvalidClientTokenId", 403)
    role = {"RoleArn": "arn:aws:iam::123456789012:role/worker"}
    assert await refused(signed.assume_role(**role, **NAME)) == ("AccessDenied", 403)
    answer = await signed.get_caller_identity()
    assert answer["Arn"] == "arn:aws:sts::123456789012:federated-user/ann"


async def test_session_tokens_call_iam_only_with_mfa(aws: StandIn, clients: Clients, sts: Client) -> None:
    plain = await session(sts.get_session_token())
    assert await refused((await clients("iam", plain)).list_users()) == ("InvalidClientTokenId", 403)
    assert await (await clients("sts", plain)).assume_role(RoleArn=await aws.role("worker"), **NAME)
    await aws.sts(mfa_codes={MFA: "123456"})
    proven = await session(sts.get_session_token(SerialNumber=MFA, TokenCode="123456"))
    assert (await (await clients("iam", proven)).list_users())["Users"] == []


async def test_names_of_federated_users_have_32_characters_at_most(sts: Client) -> None:
    assert await sts.get_federation_token(Name="a" * 32)
    assert await refused(sts.get_federation_token(Name="a" * 33)) == ("ValidationError", 400)
    assert await refused(sts.get_federation_token(Name="a b")) == ("ValidationError", 400)


async def test_the_account_s_root_user_assumes_no_role(aws: StandIn, sts: Client) -> None:
    await aws.sts(root_arn="arn:aws:iam::123456789012:root")
    assert await refused(sts.assume_role(RoleArn=await aws.role("worker"), **NAME)) == ("AccessDenied", 403)
    assert await refused(sts.get_session_token(DurationSeconds=3601)) == ("ValidationError", 400)
    assert await sts.get_session_token(DurationSeconds=3600)


# --- sessions ---------------------------------------------------------------------------------------------


async def test_a_session_needs_its_token_and_expires(aws: StandIn, clients: Clients, sts: Client) -> None:
    made = await session(sts.get_session_token(DurationSeconds=900))
    assert (await (await clients("sts", made)).get_caller_identity())["UserId"]
    bare = await clients("sts", {**made, "SessionToken": None})
    assert await refused(bare.get_caller_identity()) == ("InvalidClientTokenId", 403)
    await aws.account(clock_offset=901)
    late = await clients("sts", made)
    assert await refused(late.get_caller_identity()) == ("ExpiredToken", 403)
