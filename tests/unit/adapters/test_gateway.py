"""Checks the gateway to AWS over HTTP: fallback endpoints, signing keys and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from tests.support import imds
from tests.support.gateways import NOBODY_THERE, gateway, root
from tests.support.standin_control import StandIn, run_server

from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.query_protocol import query_service
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.aws.sdk_session import SdkSession
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import (
    AccessKey,
    CreateAccessKey,
    CreateUser,
    GetUser,
    UpdateAccessKey,
    VerifyKeyOnIam,
)
from lessor_server.domain.aws.sts_calls import AssumeRole, GetCallerIdentity, GetSessionToken, VerifyKey
from lessor_server.domain.errors.preconditions import EndpointNotAllowed
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """Run two stand-ins for this module; the time of its first call does not go into loading models."""
    for service in ("iam", "sts"):
        query_service(service)
    with run_server() as one, run_server() as two:
        yield one, two


@pytest.fixture
async def places(urls: tuple[str, str]) -> AsyncIterator[tuple[StandIn, StandIn]]:
    """Talk to both, emptied."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(StandIn.at(url)) for url in urls]
        await one.reset()
        await two.reset()
        yield one, two


@pytest.fixture
def aws(places: tuple[StandIn, StandIn]) -> StandIn:
    """Talk to the first."""
    return places[0]


def with_fallbacks(first: str, *others: str) -> Root:
    """Return a root whose STS is at ``first`` and, where that fails, at the others in turn."""
    regions = ("us-west-2", "eu-west-1", "eu-north-1")[: len(others)]
    return root(first, sts_fallback_endpoints=others, sts_fallback_regions=regions)


# --- several places of STS --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"kind": "error_before", "status": 503}, {"kind": "garbage"}])
async def test_an_endpoint_that_fails_is_skipped_for_a_while(
    places: tuple[StandIn, StandIn], fault: dict[str, str | int]
) -> None:
    one, two = places
    await one.fault(**fault)  # type: ignore[arg-type]
    async with gateway(one.url, two.url) as door:
        for _ in range(3):
            who = await door.send(with_fallbacks(one.url, two.url), GetCallerIdentity())
            assert who.account == "aws:123456789012"
    assert (await one.totals(), await two.totals()) == ({"GetCallerIdentity": 1}, {"GetCallerIdentity": 3})


async def test_an_endpoint_that_hangs_leaves_time_for_the_next(places: tuple[StandIn, StandIn]) -> None:
    """The other endpoint answers within the 7 s of the call."""
    one, two = places
    await one.fault("hang")
    async with gateway(one.url, two.url) as door:
        await door.send(with_fallbacks(one.url, two.url), GetCallerIdentity())
        await door.send(with_fallbacks(one.url, two.url), GetCallerIdentity())
    assert await one.totals() == {"GetCallerIdentity": 1}


async def test_a_refusal_of_one_endpoint_is_final(places: tuple[StandIn, StandIn]) -> None:
    one, two = places
    await one.fault("refuse")
    async with gateway(one.url, two.url) as door:
        with pytest.raises(AwsRefused, match="AccessDenied"):
            await door.send(with_fallbacks(one.url, two.url), GetCallerIdentity())
    assert await two.totals() == {}


async def test_a_disabled_region_is_skipped(places: tuple[StandIn, StandIn]) -> None:
    """RegionDisabledException does not apply to the other regions."""
    one, two = places
    await one.fault("refuse", code="RegionDisabledException")
    async with gateway(one.url, two.url) as door:
        await door.send(with_fallbacks(one.url, two.url), GetCallerIdentity())
        with pytest.raises(AwsRefused, match="RegionDisabledException") as raised:
            await door.send(root(one.url), GetCallerIdentity())
    assert raised.value.refusal is Refusal.DENIED


async def test_when_all_endpoints_fail_the_detail_has_each_cause(places: tuple[StandIn, StandIn]) -> None:
    """The message, which callers see, names no endpoint."""
    one, two = places
    await one.fault("error_before", status=503)
    await two.fault("refuse", code="RegionDisabledException")
    async with gateway(one.url, two.url) as door:
        with pytest.raises(AwsUnknown) as raised:
            await door.send(with_fallbacks(NOBODY_THERE, one.url, two.url), GetCallerIdentity())
    for place, cause in (
        (NOBODY_THERE, "EndpointConnectionError"),
        (one.url, "ServiceUnavailable"),
        (two.url, "RegionDisabledException"),
    ):
        assert f"{place}: {cause}" in raised.value.detail
        assert place not in str(raised.value)


async def test_iam_has_no_fallback(places: tuple[StandIn, StandIn]) -> None:
    one, two = places
    await one.fault("drop", "GetUser")
    async with gateway(one.url, two.url) as door:
        with pytest.raises(AwsUnknown):
            await door.send(with_fallbacks(one.url, two.url), GetUser("ann"))
    assert await two.totals() == {}


# --- whose key signs --------------------------------------------------------------------------------------


async def made_key(door: object, at: Root, name: str) -> AccessKey:
    """Make a user with a key."""
    send = door.send  # type: ignore[attr-defined]
    await send(at, CreateUser(name, "/", "", ()))
    key: AccessKey = await send(at, CreateAccessKey(name))
    return key


async def test_a_key_is_verified_by_signing_with_it(aws: StandIn) -> None:
    at = root(aws.url)
    async with gateway(aws.url) as door:
        key = await made_key(door, at, "ann")
        for proof in (VerifyKey(key), VerifyKeyOnIam(key, "ann")):
            await door.send(at, proof)
        await door.send(at, UpdateAccessKey("ann", key.access_key_id, active=False))
        for proof in (VerifyKey(key), VerifyKeyOnIam(key, "ann")):
            with pytest.raises(AwsRefused, match="InvalidClientTokenId"):
                await door.send(at, proof)
        await door.send(at, UpdateAccessKey("ann", key.access_key_id, active=True))
        await door.send(at, VerifyKey(key))
    signers = {str(call["key_id"]) for call in await aws.calls("GetUser")}
    assert signers == {key.access_key_id}


async def test_a_key_without_permissions_is_verified_too(aws: StandIn) -> None:
    """IAM's AccessDenied shows that it knows the key."""
    at = root(aws.url)
    await aws.fault("refuse", "GetUser")
    async with gateway(aws.url) as door:
        key = await made_key(door, at, "ann")
        await door.send(at, VerifyKeyOnIam(key, "ann"))


async def test_a_session_is_verified_with_its_token(aws: StandIn) -> None:
    at = root(aws.url)
    async with gateway(aws.url) as door:
        made = await door.send(at, GetSessionToken(900))
        await door.send(at, VerifyKey(AccessKey(made.access_key_id, made.secret, made.token)))
        with pytest.raises(AwsRefused, match="InvalidClientTokenId"):
            await door.send(at, VerifyKey(AccessKey(made.access_key_id, made.secret)))


async def test_the_server_s_own_credentials_are_fetched_once(
    monkeypatch: pytest.MonkeyPatch, aws: StandIn
) -> None:
    role = await aws.role("worker")
    async with imds.serving() as instance, gateway(aws.url) as door:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url)
        ambient = root(aws.url, access_key="", secret_key=Secret())
        first, second = [await door.send(ambient, AssumeRole(role, "app", 900)) for _ in range(2)]
        assert instance.fetched == 1
        assert {call["key_id"] for call in await aws.calls()} == {instance.key_id}
    assert first.access_key_id != second.access_key_id
    assert await aws.connections() == 1


async def test_credentials_that_are_available_later_are_found(
    monkeypatch: pytest.MonkeyPatch, aws: StandIn
) -> None:
    """The metadata service may start after the server."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", NOBODY_THERE)
    ambient = root(aws.url, access_key="", secret_key=Secret())
    async with imds.serving() as instance, gateway(aws.url) as door:
        for _ in range(2):
            with pytest.raises(AwsRefused, match="NoCredentialsError"):
                await door.send(ambient, GetCallerIdentity())
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url)
        await door.send(ambient, GetCallerIdentity())
    assert [call["key_id"] for call in await aws.calls()] == [instance.key_id]


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_id": None},
        {"key_id": ["AKIAOFTHEINSTANCE000"]},
        {"key_id": "AKIAOFTHEINSTANCE000\r\nX-Evil: 1"},
        {"expiration": "2096-10-02T07:06:40"},
        {"expiration": "soon"},
    ],
    ids=repr,
)
async def test_wrong_credentials_of_a_metadata_service_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, aws: StandIn, wrong: dict[str, object]
) -> None:
    """They would be until they expire."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    ambient = root(aws.url, access_key="", secret_key=Secret())
    async with imds.serving() as instance, gateway(aws.url) as door:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url)
        right = {name: getattr(instance, name) for name in wrong}
        for name, value in wrong.items():
            setattr(instance, name, value)
        with pytest.raises(AwsUnknown) as raised:
            await door.send(ambient, GetCallerIdentity())
        assert not raised.value.sent
        for name, value in right.items():
            setattr(instance, name, value)
        await door.send(ambient, GetCallerIdentity())
    assert [call["key_id"] for call in await aws.calls()] == [instance.key_id]


async def test_an_endpoint_that_is_no_longer_allowed_is_not_called(places: tuple[StandIn, StandIn]) -> None:
    one, two = places
    async with gateway(one.url) as door:
        with pytest.raises(EndpointNotAllowed):
            await door.send(root(two.url), GetCallerIdentity())
    assert await two.totals() == {}


async def test_endpoint_variables_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, places: tuple[StandIn, StandIn]
) -> None:
    one, two = places
    monkeypatch.setenv("AWS_ENDPOINT_URL", two.url)
    route = Routes((one.url,)).find("sts", Endpoint("", "eu-west-1"), token=False)
    assert route.url == "https://sts.eu-west-1.amazonaws.com"


# --- where AWS is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "sts", "iam"),
    [
        ("", "https://sts.us-east-1.amazonaws.com", "https://iam.amazonaws.com"),
        ("eu-west-1", "https://sts.eu-west-1.amazonaws.com", "https://iam.amazonaws.com"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com", "https://iam.us-gov.amazonaws.com"),
        (
            "cn-north-1",
            "https://sts.cn-north-1.amazonaws.com.cn",
            "https://iam.cn-north-1.amazonaws.com.cn",
        ),
        (
            "eusc-de-east-1",
            "https://sts.eusc-de-east-1.amazonaws.eu",
            "https://iam.eusc-de-east-1.amazonaws.eu",
        ),
        ("us-iso-east-1", "https://sts.us-iso-east-1.c2s.ic.gov", "https://iam.us-iso-east-1.c2s.ic.gov"),
    ],
)
async def test_endpoints_are_those_of_the_region_s_partition(region: str, sts: str, iam: str) -> None:
    for service, expected in (("sts", sts), ("iam", iam)):
        assert Routes(()).find(service, Endpoint("", region), token=False).url == expected


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("sts", "AWS_USE_FIPS_ENDPOINT", "true"),
        ("iam", "AWS_USE_FIPS_ENDPOINT", "true"),
        ("sts", "AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("iam", "AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("sts", "AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
    ],
)
async def test_settings_of_the_sdk_decide_the_endpoint_as_for_its_own_clients(
    monkeypatch: pytest.MonkeyPatch, service: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    route = Routes(()).find(service, Endpoint("", "us-west-2"), token=False)
    async with SdkSession().create_client(service, region_name="us-west-2") as client:
        assert client.meta.endpoint_url == route.url


async def test_a_region_that_aws_does_not_have_means_that_nothing_was_sent() -> None:
    async with gateway() as door:
        with pytest.raises(AwsUnknown) as raised:
            await door.send(root("", region="not a region"), GetCallerIdentity())
    assert not raised.value.sent
