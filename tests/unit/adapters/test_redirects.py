"""Checks that no request follows a redirect, and that a redirect is not a clear answer to a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.gateways import chained, gateway, root, token_file
from tests.support.standin_control import StandIn, run_server
from tests.support.stranger import Stranger, page, stranger

from lessor_server.domain.aws.errors import AwsError, AwsUnknown
from lessor_server.domain.aws.iam_calls import AccessKey, Call, CreateAccessKey
from lessor_server.domain.aws.sts_calls import GetCallerIdentity, VerifyKey
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret

STATUSES = (300, 301, 302, 303, 304, 305, 307, 308)
SESSION = AccessKey("ASIAEXAMPLEEXAMPLE00", Secret("not-a-secret"), Secret("not-a-token"))
CALLS: dict[str, Call[object]] = {
    "IAM": CreateAccessKey("ann"),
    "STS": GetCallerIdentity(),
    "session token": VerifyKey(SESSION),
    "web identity": GetCallerIdentity(),
}


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """Run two stand-ins for this module."""
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


def root_for(kind: str, url: str, folder: Path) -> Root:
    """Return a root by keys, or one by a web identity token."""
    if kind != "web identity":
        return root(url)
    path = token_file(folder / "token", aud="sts.amazonaws.com")
    without_keys = root(url, access_key="", secret_key=Secret(), identity_token_file=path)
    return chained(without_keys, "arn:aws:iam::123456789012:role/web")


@pytest.mark.parametrize("kind", CALLS)
async def test_no_redirect_to_another_host_is_followed(
    places: tuple[StandIn, StandIn], tmp_path: Path, kind: str
) -> None:
    one, two = places
    async with gateway(one.url, two.url) as door:
        for status in STATUSES:
            await one.clear_faults()
            await one.fault("redirect", status=status, message=f"{two.url}/?Action=GetCallerIdentity")
            with pytest.raises(AwsUnknown, match="UnreadableAnswer") as caught:
                await door.send(root_for(kind, one.url, tmp_path), CALLS[kind])
            assert f"HTTP {status}" in caught.value.detail
            assert caught.value.sent == (kind != "web identity")  # there the call itself was not begun
    assert len(await one.calls()) == len(STATUSES)
    assert (await two.totals(), await two.connections()) == ({}, 0)


@pytest.mark.parametrize("kind", CALLS)
async def test_no_redirect_to_the_same_host_is_followed(
    places: tuple[StandIn, StandIn], tmp_path: Path, kind: str
) -> None:
    one, _ = places
    async with gateway(one.url) as door:
        for status in STATUSES:
            await one.clear_faults()
            await one.fault("redirect", status=status, message="/elsewhere")
            with pytest.raises(AwsUnknown):
                await door.send(root_for(kind, one.url, tmp_path), CALLS[kind])
    assert len(await one.calls()) == len(STATUSES)


async def test_after_a_redirect_the_next_endpoint_of_sts_is_tried(
    places: tuple[StandIn, StandIn],
) -> None:
    one, two = places
    await one.fault("redirect", message="http://127.0.0.1:1/")
    async with gateway(one.url, two.url) as door:
        at = root(one.url, sts_fallback_endpoints=(two.url,), sts_fallback_regions=("eu-west-1",))
        await door.send(at, GetCallerIdentity())
    assert await two.totals() == {"GetCallerIdentity": 1}


# --- the server's own credentials -------------------------------------------------------------------------


@pytest.fixture
async def other() -> AsyncIterator[Stranger]:
    """Run the host that redirects lead to; it gives credentials to any caller."""
    async with stranger(
        page(200, b'{"AccessKeyId":"AKIAOFASTRANGER00000","SecretAccessKey":"x","Token":"t"}')
    ) as one:
        yield one


@pytest.fixture
async def ambient(
    other: Stranger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Stranger]:
    """Run a source of credentials that redirects, in surroundings that name no other."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with stranger(page(307, b"", f"Location: {other.url}/")) as source:
        yield source


async def fails(url: str) -> AwsError:
    """Return how a call fails that the server's own credentials would sign."""
    async with gateway(url) as door:
        with pytest.raises(AwsError) as caught:
            await door.send(root(url, access_key="", secret_key=Secret()), GetCallerIdentity())
    return caught.value


def require_own(failure: AwsError, source: Stranger) -> None:
    """Check that a failure names who had the credentials, and no call that was not sent."""
    assert failure.message == "AWS credentials of the server: UnreadableAnswer"
    assert failure.aws is not None
    assert failure.aws.action == "credentials of the server"
    assert failure.detail == f"{source.url}: HTTP 307: a redirect, which is not followed"


async def test_the_instance_metadata_client_follows_no_redirect(
    places: tuple[StandIn, StandIn], ambient: Stranger, other: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", ambient.url)
    require_own(await fails(places[0].url), ambient)
    assert ambient.received
    assert other.received == []


async def test_the_container_metadata_client_follows_no_redirect(
    places: tuple[StandIn, StandIn], ambient: Stranger, other: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{ambient.url}/creds")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-a-token")
    failure = await fails(places[0].url)
    require_own(failure, ambient)
    assert "/creds" not in failure.detail
    assert ambient.received
    assert other.received == []


async def test_the_server_s_own_web_identity_is_not_sent_elsewhere(
    places: tuple[StandIn, StandIn],
    ambient: Stranger,
    other: Stranger,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The SDK sends it with a client of its own."""
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token_file(tmp_path / "token", aud="sts.amazonaws.com"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/web")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ambient.url)
    failure = await fails(places[0].url)
    require_own(failure, ambient)
    assert isinstance(failure, AwsUnknown)
    assert not failure.sent
    assert b"AssumeRoleWithWebIdentity" in ambient.received[0]
    assert other.received == []
    assert await places[0].calls() == []


async def test_a_refusal_to_the_server_s_own_web_identity_is_not_one_of_the_call(
    places: tuple[StandIn, StandIn], monkeypatch: pytest.MonkeyPatch, ambient: Stranger, tmp_path: Path
) -> None:
    """Otherwise it would read as if the user of the call did not exist."""
    body = b"<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>ann</Message></Error></ErrorResponse>"
    ambient.answer = page(404, body)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token_file(tmp_path / "token", aud="sts.amazonaws.com"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/web")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ambient.url)
    async with gateway(places[0].url) as door:
        with pytest.raises(AwsUnknown, match="AWS AssumeRoleWithWebIdentity: NoSuchEntity") as caught:
            await door.send(root(places[0].url, access_key="", secret_key=Secret()), CreateAccessKey("ann"))
    assert not caught.value.sent
