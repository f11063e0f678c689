"""Checks the web identity token of a root: read anew, looked at, and sent to nobody but AWS."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest
from tests.support.gateways import chained, gateway, json_web_token, root, token_file
from tests.support.standin_control import StandIn

from lessor_server.adapters.aws import identity_token
from lessor_server.adapters.aws.clients import Clients
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.domain.aws_errors import AwsRefused, Refusal
from lessor_server.domain.calls import GetCallerIdentity
from lessor_server.domain.preconditions import EndpointNotAllowed, IdentityTokenUnusable
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret

AUDIENCE = "sts.amazonaws.com"


def with_token(url: str, path: str, *hops: str, **changes: str) -> Root:
    """Return a root of a token and a chain."""
    without_keys = root(url, access_key="", secret_key=Secret(), identity_token_file=path, **changes)
    return chained(without_keys, *hops)


async def test_a_token_assumes_the_first_role_unsigned(aws: StandIn, tmp_path: Path) -> None:
    """The token speaks for itself, and the session it gives signs the next hop."""
    first = await aws.role("first", audience=AUDIENCE)
    second = await aws.role("second", trusts=[first])
    path = token_file(tmp_path / "token", aud=AUDIENCE, sub="lessor")
    async with gateway(aws.url) as door:
        who = await door.send(with_token(aws.url, path, first, second), GetCallerIdentity())
    assert who.arn.endswith(":assumed-role/second/lessor-test")
    (web,) = await aws.calls("AssumeRoleWithWebIdentity")
    assert web["key_id"] == ""


async def test_the_token_is_read_anew_at_each_use(aws: StandIn, tmp_path: Path) -> None:
    """A token that its keeper replaced is used from then on; the file that fails says how."""
    role = await aws.role("worker", audience=AUDIENCE)
    path = tmp_path / "token"
    async with gateway(aws.url) as door:
        end = with_token(aws.url, str(path), role)
        with pytest.raises(IdentityTokenUnusable) as unusable:
            await door.send(end, GetCallerIdentity())
        assert "No such file" in unusable.value.detail
        token_file(path, aud="somebody-else")
        with pytest.raises(AwsRefused, match=r"assume_chain\[0\]: InvalidIdentityToken") as told:
            await door.send(end, GetCallerIdentity())
        assert told.value.refusal is Refusal.DENIED
        token_file(path, aud=AUDIENCE, exp=1)
        with pytest.raises(AwsRefused, match="ExpiredTokenException"):
            await door.send(end, GetCallerIdentity())
        token_file(path, aud=AUDIENCE)
        await door.send(end, GetCallerIdentity())


async def test_a_token_for_another_audience_is_not_sent(aws: StandIn, tmp_path: Path) -> None:
    """With identity_token_audience set, the token's own audience is looked at before it leaves."""
    role = await aws.role("worker", audience=AUDIENCE)
    path = token_file(tmp_path / "token", aud="somebody-else")
    async with gateway(aws.url) as door:
        with pytest.raises(IdentityTokenUnusable) as told:
            await door.send(
                with_token(aws.url, path, role, identity_token_audience=AUDIENCE), GetCallerIdentity()
            )
        assert "not meant for" in told.value.detail
        token_file(tmp_path / "token", aud=["other", AUDIENCE])
        await door.send(
            with_token(aws.url, path, role, identity_token_audience=AUDIENCE), GetCallerIdentity()
        )
    assert len(await aws.calls("AssumeRoleWithWebIdentity")) == 1


async def test_an_identity_provider_that_sts_does_not_reach_may_be_tried_again(
    aws: StandIn, tmp_path: Path
) -> None:
    """IDPCommunicationError is no refusal: AWS asks to try again."""
    role = await aws.role("worker", audience=AUDIENCE)
    path = token_file(tmp_path / "token", aud=AUDIENCE)
    await aws.fault("refuse", "AssumeRoleWithWebIdentity", times=1, status=400, code="IDPCommunicationError")
    async with gateway(aws.url) as door:
        end = with_token(aws.url, path, role)
        with pytest.raises(Exception, match="IDPCommunicationError") as told:
            await door.send(end, GetCallerIdentity())
        assert told.value.kind.value == "unavailable"  # type: ignore[attr-defined]
        await door.send(end, GetCallerIdentity())


async def test_a_token_goes_to_no_host_that_is_not_aws_s(tmp_path: Path) -> None:
    """An allowed endpoint elsewhere takes signed requests, never a token; only a loopback may."""
    path = token_file(tmp_path / "token", aud=AUDIENCE)
    elsewhere = "https://sts.proxy.test"
    async with Clients((elsewhere,), "lessor/test") as clients:
        end = with_token(elsewhere, path, "arn:aws:iam::123456789012:role/worker")
        with pytest.raises(EndpointNotAllowed):
            await AwsGateway(clients).send(end, GetCallerIdentity())


HEADER, CLAIMS, SIGNATURE = json_web_token({"alg": "RS256"}, {"aud": AUDIENCE}).split(".")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "holds no token of"),
        ("x" * 20_001, "holds no token of"),
        ("\xff\xfe", "holds no token"),
        ("LESSOR_ROOT_TOKEN=not-a-secret\0HOME=/", "something else than a token"),
        (f"{HEADER}.{CLAIMS}.{SIGNATURE}\n{SIGNATURE}", "something else than a token"),
        (f"{HEADER}.{CLAIMS}.{{}}", "something else than a token"),
        ("-----BEGIN PRIVATE KEY-----\nbm90LWEtc2VjcmV0\n", "something else than a token"),
        ("root:not-a-secret:19000:0:99999:7:::", "something else than a token"),
        ("plain", "no JSON web token with an audience"),
        ("a.b.c", "no JSON web token with an audience"),
        (json_web_token({"alg": "RS256"}, None), "no JSON web token with an audience"),
        (json_web_token({"alg": "RS256"}, {}), "no JSON web token with an audience"),
        (f"{HEADER}.{base64.urlsafe_b64encode(b'[' * 12_000).decode()}.{SIGNATURE}", "no JSON web token"),
        (json_web_token({"alg": "RS256"}, {"aud": {"a": 1}}), "not meant for"),
    ],
)
async def test_what_is_no_token_says_so(tmp_path: Path, content: str, fault: str) -> None:
    """A file that holds something else is told as such, without a word of what it holds."""
    path = tmp_path / "token"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(IdentityTokenUnusable) as told:
        await identity_token.read(str(path), AUDIENCE)
    assert fault in told.value.detail
    assert not any(part in repr(told.value) for part in content.split() if len(part) > 1)


@pytest.mark.parametrize("audience", ["", AUDIENCE])
async def test_what_is_no_token_is_not_sent(aws: StandIn, tmp_path: Path, audience: str) -> None:
    """Any other file of the server stays there, also where no audience is asked for."""
    role = await aws.role("worker", audience=AUDIENCE)
    path = tmp_path / "secrets"
    path.write_text("[default]\naws_secret_access_key = not-a-secret\n")
    async with gateway(aws.url) as door:
        end = with_token(aws.url, str(path), role, identity_token_audience=audience)
        with pytest.raises(IdentityTokenUnusable) as told:
            await door.send(end, GetCallerIdentity())
    assert "something else than a token" in told.value.detail
    assert await aws.calls() == []


def projected(folder: Path, audience: str) -> Path:
    """Write a token as a projected volume does: a link to a link to a folder, all in one directory."""
    (folder / "..now").mkdir(parents=True)
    token_file(folder / "..now" / "token", aud=audience)
    (folder / "..data").symlink_to("..now")
    (folder / "token").symlink_to("..data/token")
    return folder / "token"


async def test_a_token_is_read_from_the_directories_that_are_set(tmp_path: Path) -> None:
    """Links within them lead to it, and so does a link to the directory itself."""
    path = projected(tmp_path / "tokens", AUDIENCE)
    (tmp_path / "linked").symlink_to("tokens")
    for folder, name in (("tokens", path), ("linked", tmp_path / "linked" / "token"), ("tokens", path)):
        found = await identity_token.read(str(name), AUDIENCE, (tmp_path / "other", tmp_path / folder))
        assert found.reveal().count(".") == 2


async def test_no_link_leads_out_of_the_directories_that_are_set(tmp_path: Path) -> None:
    """Neither a link to a file, nor one to a folder, nor a way up; the error has nothing of the content."""
    outside = token_file(tmp_path / "outside", aud=AUDIENCE)
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    (folder / "up").symlink_to("..")
    for name in (outside, folder / "file", folder / "up" / "outside", f"{folder}/../outside"):
        with pytest.raises(IdentityTokenUnusable) as told:
            await identity_token.read(str(name), AUDIENCE, (folder,))
        assert "outside of the setting aws.identity_token_dirs" in told.value.detail


async def test_the_gateway_keeps_to_the_directories_that_are_set(aws: StandIn, tmp_path: Path) -> None:
    """A root that was stored before the setting sends nothing from elsewhere."""
    role = await aws.role("worker", audience=AUDIENCE)
    inside, outside = projected(tmp_path / "tokens", AUDIENCE), token_file(tmp_path / "outside", aud=AUDIENCE)
    async with Clients((aws.url,), "lessor/test") as clients:
        door = AwsGateway(clients, token_folders=(tmp_path / "tokens",))
        with pytest.raises(IdentityTokenUnusable):
            await door.send(with_token(aws.url, outside, role), GetCallerIdentity())
        assert await aws.calls() == []
        await door.send(with_token(aws.url, str(inside), role), GetCallerIdentity())


async def test_a_path_at_which_no_file_can_be_says_so(tmp_path: Path) -> None:
    """A pipe that nobody writes to holds no thread up, and a name that no file has is told like any other."""
    os.mkfifo(tmp_path / "pipe")
    async with asyncio.timeout(30):
        for path in (tmp_path / "pipe", tmp_path):
            with pytest.raises(IdentityTokenUnusable) as told:
                await identity_token.read(str(path), "")
            assert any(fault in told.value.detail for fault in ("no regular file", "Is a directory"))
        with pytest.raises(IdentityTokenUnusable):
            await identity_token.read(f"{tmp_path}/a\0b", "")
