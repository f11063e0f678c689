"""Checks how the web identity token of a root is read and verified, and that only AWS receives it."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from pathlib import Path

import pytest
from tests.support.gateways import chained, gateway, json_web_token, root, token_file
from tests.support.standin_control import StandIn

from lessor_server.adapters.aws import identity_token
from lessor_server.domain.aws.errors import AwsRefused, Refusal
from lessor_server.domain.aws.sts_calls import GetCallerIdentity
from lessor_server.domain.errors.preconditions import EndpointNotAllowed, IdentityTokenUnusable
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

AUDIENCE = "sts.amazonaws.com"


def with_token(url: str, path: str, *hops: str, **changes: str) -> Root:
    """Return a root of a token and a chain."""
    without_keys = root(url, access_key="", secret_key=Secret(), identity_token_file=path, **changes)
    return chained(without_keys, *hops)


async def test_a_token_assumes_the_first_role_unsigned(aws: StandIn, tmp_path: Path) -> None:
    first = await aws.role("first", audience=AUDIENCE)
    second = await aws.role("second", trusts=[first])
    path = token_file(tmp_path / "token", aud=AUDIENCE, sub="lessor")
    async with gateway(aws.url) as door:
        who = await door.send(with_token(aws.url, path, first, second), GetCallerIdentity())
    assert who.arn.endswith(":assumed-role/second/lessor-test")
    (web,) = await aws.calls("AssumeRoleWithWebIdentity")
    assert web["key_id"] == ""


async def test_the_token_is_read_at_each_use(aws: StandIn, tmp_path: Path) -> None:
    role = await aws.role("worker", audience=AUDIENCE)
    path = tmp_path / "token"
    async with gateway(aws.url) as door:
        end = with_token(aws.url, str(path), role)
        with pytest.raises(IdentityTokenUnusable) as unusable:
            await door.send(end, GetCallerIdentity())
        assert unusable.value.detail == identity_token.UNUSABLE
        token_file(path, aud="somebody-else")
        with pytest.raises(AwsRefused, match=r"assume_chain\[0\]: InvalidIdentityToken") as raised:
            await door.send(end, GetCallerIdentity())
        assert raised.value.refusal is Refusal.DENIED
        token_file(path, aud=AUDIENCE, exp=1)
        with pytest.raises(AwsRefused, match="ExpiredTokenException"):
            await door.send(end, GetCallerIdentity())
        token_file(path, aud=AUDIENCE)
        await door.send(end, GetCallerIdentity())


async def test_a_token_for_another_audience_is_not_sent(aws: StandIn, tmp_path: Path) -> None:
    role = await aws.role("worker", audience=AUDIENCE)
    path = token_file(tmp_path / "token", aud="somebody-else")
    async with gateway(aws.url) as door:
        with pytest.raises(IdentityTokenUnusable) as raised:
            await door.send(
                with_token(aws.url, path, role, identity_token_audience=AUDIENCE), GetCallerIdentity()
            )
        assert "is not for" in raised.value.detail
        token_file(tmp_path / "token", aud=["other", AUDIENCE])
        await door.send(
            with_token(aws.url, path, role, identity_token_audience=AUDIENCE), GetCallerIdentity()
        )
    assert len(await aws.calls("AssumeRoleWithWebIdentity")) == 1


async def test_an_identity_provider_that_sts_does_not_reach_can_be_retried(
    aws: StandIn, tmp_path: Path
) -> None:
    """IDPCommunicationError is not a refusal."""
    role = await aws.role("worker", audience=AUDIENCE)
    path = token_file(tmp_path / "token", aud=AUDIENCE)
    await aws.fault("refuse", "AssumeRoleWithWebIdentity", times=1, status=400, code="IDPCommunicationError")
    async with gateway(aws.url) as door:
        end = with_token(aws.url, path, role)
        with pytest.raises(Exception, match="IDPCommunicationError") as raised:
            await door.send(end, GetCallerIdentity())
        assert raised.value.kind.value == "unavailable"  # type: ignore[attr-defined]
        await door.send(end, GetCallerIdentity())


async def test_a_token_is_sent_only_to_aws_or_loopback(tmp_path: Path) -> None:
    """An allowed endpoint elsewhere gets signed requests, but no token."""
    path = token_file(tmp_path / "token", aud=AUDIENCE)
    elsewhere = "https://sts.proxy.test"
    async with gateway(elsewhere) as door:
        end = with_token(elsewhere, path, "arn:aws:iam::123456789012:role/worker")
        with pytest.raises(EndpointNotAllowed):
            await door.send(end, GetCallerIdentity())


HEADER, CLAIMS, SIGNATURE = json_web_token({"alg": "RS256"}, {"aud": AUDIENCE}).split(".")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "x" * 20_001,
        "\xff\xfe",
        "LESSOR_ROOT_TOKEN=not-a-secret\0HOME=/",
        f"{HEADER}.{CLAIMS}.{SIGNATURE}\n{SIGNATURE}",
        f"{HEADER}.{CLAIMS}.{{}}",
        "-----BEGIN PRIVATE KEY-----\nbm90LWEtc2VjcmV0\n",
        "root:not-a-secret:19000:0:99999:7:::",
        "plain",
        "a.b.c",
        json_web_token({"alg": "RS256"}, None),
        json_web_token({"alg": "RS256"}, {}),
        f"{HEADER}.{base64.urlsafe_b64encode(b'[' * 12_000).decode()}.{SIGNATURE}",
    ],
)
async def test_a_file_without_a_token_has_the_error_of_a_missing_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(IdentityTokenUnusable) as raised:
        await identity_token.read_token(str(path), AUDIENCE, TokenPlaces())
    assert raised.value.detail == identity_token.UNUSABLE
    assert not any(part in repr(raised.value) for part in content.split() if len(part) > 1)


@pytest.mark.parametrize("audience", [{"a": 1}, "other", ["other"], 1, None])
async def test_the_error_of_a_token_for_another_audience_names_it(tmp_path: Path, audience: object) -> None:
    path = token_file(tmp_path / "token", aud=audience)
    with pytest.raises(IdentityTokenUnusable) as raised:
        await identity_token.read_token(path, AUDIENCE, TokenPlaces())
    assert "not for identity_token_audience" in raised.value.detail


@pytest.mark.parametrize("audience", ["", AUDIENCE])
async def test_a_file_without_a_token_is_not_sent(aws: StandIn, tmp_path: Path, audience: str) -> None:
    role = await aws.role("worker", audience=AUDIENCE)
    path = tmp_path / "secrets"
    path.write_text("[default]\naws_secret_access_key = not-a-secret\n")
    async with gateway(aws.url) as door:
        end = with_token(aws.url, str(path), role, identity_token_audience=audience)
        with pytest.raises(IdentityTokenUnusable) as raised:
            await door.send(end, GetCallerIdentity())
    assert raised.value.detail == identity_token.UNUSABLE
    assert await aws.calls() == []


def only(*folders: Path) -> TokenPlaces:
    """Return places that the operator has set."""
    return TokenPlaces(tuple(map(str, folders)), enforced=True)


async def unusable(path: str | Path, places: TokenPlaces) -> None:
    """Check that a path gives nothing but the one text."""
    with pytest.raises(IdentityTokenUnusable) as raised:
        await identity_token.read_token(str(path), "", places)
    assert raised.value.detail == identity_token.UNUSABLE


def projected(folder: Path, audience: str) -> Path:
    """Write a token as a projected volume does: a link to a link to a folder, all in one directory."""
    (folder / "..now").mkdir(parents=True)
    token_file(folder / "..now" / "token", aud=audience)
    (folder / "..data").symlink_to("..now")
    (folder / "token").symlink_to("..data/token")
    return folder / "token"


async def test_a_token_is_read_from_the_directories_that_are_set(tmp_path: Path) -> None:
    path = projected(tmp_path / "tokens", AUDIENCE)
    (tmp_path / "linked").symlink_to("tokens")
    for folder, name in (("tokens", path), ("linked", tmp_path / "linked" / "token"), ("tokens", path)):
        places = only(tmp_path / "other", tmp_path / folder)
        found = await identity_token.read_token(str(name), AUDIENCE, places)
        assert found.reveal().count(".") == 2


async def test_no_link_leads_out_of_the_directories_that_are_set(tmp_path: Path) -> None:
    outside = token_file(tmp_path / "outside", aud=AUDIENCE)
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    (folder / "up").symlink_to("..")
    for name in (outside, folder / "file", folder / "up" / "outside", f"{folder}/../outside"):
        await unusable(name, only(folder))


async def test_the_gateway_reads_only_from_the_directories_that_are_set(aws: StandIn, tmp_path: Path) -> None:
    role = await aws.role("worker", audience=AUDIENCE)
    inside, outside = projected(tmp_path / "tokens", AUDIENCE), token_file(tmp_path / "outside", aud=AUDIENCE)
    async with gateway(aws.url, token_places=only(tmp_path / "tokens")) as door:
        with pytest.raises(IdentityTokenUnusable):
            await door.send(with_token(aws.url, outside, role), GetCallerIdentity())
        assert await aws.calls() == []
        await door.send(with_token(aws.url, str(inside), role), GetCallerIdentity())


async def test_without_a_directory_setting_a_stored_path_is_still_read(tmp_path: Path) -> None:
    """The default until 1.0 for roots that are already stored."""
    before = token_file(tmp_path / "before", aud=AUDIENCE)
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "token").symlink_to(before)
    places = TokenPlaces(dirs=(str(folder),))
    await identity_token.read_token(before, AUDIENCE, places)
    await unusable(folder / "token", places)


@pytest.mark.parametrize("enforced", [False, True])
async def test_no_root_reads_a_file_of_the_server(tmp_path: Path, enforced: bool) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data / "backups", other):
        folder.mkdir(parents=True)
    key = token_file(other / "key", aud=AUDIENCE)
    places = TokenPlaces((str(tmp_path),), enforced, str(data), (key,))
    root_token, backup = token_file(data / "root-token", aud=AUDIENCE), token_file(data / "backups" / "b")
    (tmp_path / "file").symlink_to(root_token)
    (tmp_path / "folder").symlink_to(data)
    (tmp_path / "key").symlink_to(key)
    for name in (
        root_token,
        backup,
        key,
        tmp_path / "file",
        tmp_path / "folder" / "root-token",
        tmp_path / "folder" / "backups" / "b",
        tmp_path / "key",
        f"{tmp_path}/other/../data/root-token",
        f"{tmp_path}/./data//root-token",
    ):
        await unusable(name, places)
    await identity_token.read_token(token_file(other / "token", aud=AUDIENCE), AUDIENCE, places)


async def test_a_file_with_two_hard_links_is_not_read(tmp_path: Path) -> None:
    """The other link may be in the data directory."""
    path = token_file(tmp_path / "token", aud=AUDIENCE)
    (tmp_path / "again").hardlink_to(path)
    for places in (only(tmp_path), TokenPlaces()):
        await unusable(path, places)
    (tmp_path / "again").unlink()
    await identity_token.read_token(path, AUDIENCE, only(tmp_path))


async def test_the_error_does_not_reveal_what_is_at_a_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "terminal").symlink_to("/dev/tty")
    listener = await asyncio.start_unix_server(lambda *_: None, tmp_path / "socket")
    closed = Path(token_file(tmp_path / "closed", aud=AUDIENCE))
    os.chmod(closed, 0)  # noqa: PTH101
    names = [
        "none",
        "none/below",
        "pipe",
        "loop",
        "device",
        "terminal",
        "socket",
        "a\0b",
        "\ud800",
        "x" * 300,
    ]
    names += [] if os.access(closed, os.R_OK) else ["closed"]
    async with listener, asyncio.timeout(30):
        for name in (f"{tmp_path}/{one}" for one in names):
            await unusable(name, only(tmp_path))
            await unusable(name, TokenPlaces())
        await unusable(tmp_path, TokenPlaces())
        await unusable("/etc/passwd", only(tmp_path))


async def test_a_link_that_changes_during_the_check_leads_nowhere_else(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "tokens"
    for one in (outside, folder / "real"):
        one.mkdir(parents=True)
        (one / "token").write_text(one.name)
    places = only(folder)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for target in ("real", outside):
                (folder / "new").symlink_to(target)
                (folder / "new").rename(folder / "now")

    changing = threading.Thread(target=change)
    changing.start()
    seen = set()
    try:
        for _ in range(300):
            try:
                seen.add(
                    (await identity_token.read_token(str(folder / "now" / "token"), "", places)).reveal()
                )
            except IdentityTokenUnusable:
                seen.add("")
    finally:
        stop.set()
        changing.join()
    assert seen <= {"real", ""}
    assert "real" in seen
