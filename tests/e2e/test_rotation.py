"""Checks RotateRoot and static roles, also with kills.

Each test has its own AWS, since the keys of its root change.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import config_pb2, creds_pb2, role_pb2
from tests.support.clients import ROOT_KEY, Lessor, connect, refused, root_at, until
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

ROOT, USER = "root-of-lessor", "billing"
SPOKE = "222222222222"
Code = grpc.StatusCode
CALLS = ("ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey")
MARKS = {
    "ListAccessKeys": [pytest.mark.slow],
    "UpdateAccessKey": [pytest.mark.slow, pytest.mark.fire],
    "DeleteAccessKey": [pytest.mark.slow, pytest.mark.fire],
}
"""Of the actions. The last two come a minute later, with the old key: virtual time plays them in each run."""


@dataclass(slots=True)
class Place:
    """An AWS, a server that is killed and started again, and a way to call it."""

    aws: StandIn
    folder: Path
    server: ServerProcess = field(default_factory=ServerProcess)

    async def start(self) -> None:
        """Start the server, for the first time or again over the same data."""
        await self.server.start(self.folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": self.aws.url})

    def connect(self) -> Any:
        """Open a channel to the server that runs now."""
        return connect(self.server.address, self.server.token)

    async def keys(self, user: str = ROOT) -> dict[str, str]:
        """Return a user's keys on AWS, ids to status."""
        found = (await self.aws.users())[user]
        return {key["id"]: key["status"] for key in cast("list[dict[str, str]]", found["keys"])}

    async def events(self) -> set[object]:
        """Return the names of the events that the server has logged, over all its lives."""
        return {line.get("event") for line in self.server.log()}

    async def root_key(self) -> str:
        """Return the id of the root's key."""
        async with self.connect() as lessor:
            return str((await lessor.config.GetRoot(config_pb2.GetRootRequest())).config.access_key)


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Run an AWS with a real root user and a user for static roles, and a server with the mount ``aws``."""
    async with StandIn.start() as aws:
        await aws.root(ROOT_KEY)
        await aws.touch(USER, "user")
        made = Place(aws, tmp_path)
        await made.start()
        async with made.connect() as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
        yield made
        await made.server.kill()


async def rotate(lessor: Lessor, *, delete_other_key: bool = False) -> str:
    """Rotate the root and return the new key's id."""
    request = config_pb2.RotateRootRequest(delete_other_key=delete_other_key)
    return str((await lessor.config.RotateRoot(request, timeout=60)).access_key)


async def put(lessor: Lessor, **fields: Any) -> role_pb2.StaticRole:
    """Put a static role that rotates each week, unless the fields say otherwise."""
    given = {"name": USER, "username": USER, "rotation_period": Duration(seconds=604_800), **fields}
    request = role_pb2.PutStaticRoleRequest(static_role=role_pb2.StaticRole(**given))
    return (await lessor.roles.PutStaticRole(request, timeout=60)).static_role


async def credentials(lessor: Lessor) -> creds_pb2.GetStaticCredentialsResponse:
    """Read the static role's key."""
    return await lessor.creds.GetStaticCredentials(creds_pb2.GetStaticCredentialsRequest(role=USER))


async def test_a_root_is_rotated_and_continues_to_work(place: Place) -> None:
    async with place.connect() as lessor:
        new = await rotate(lessor)
        assert new == await place.root_key() != ROOT_KEY
        assert (await lessor.generate("aws")).access_key
        await until(place.keys, lambda keys: keys == {ROOT_KEY: "Inactive", new: "Active"})
        set_again = config_pb2.SetRootRequest(config=root_at(place.aws.url))
        refusal = await refused(lessor.config.SetRoot(set_again))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_KEY_ROTATED_AWAY")
        assert await rotate(lessor) != new
        assert ROOT_KEY not in await place.keys()


@pytest.mark.slow
async def test_the_key_at_the_beginning_of_a_chain_is_rotated(place: Place) -> None:
    spoke = await place.aws.role("spoke", account=SPOKE, trusts=["123456789012"], external_id="sesame")
    chain = [config_pb2.AssumeStep(role_arn=spoke, external_id="sesame")]
    config = root_at(place.aws.url, assume_chain=chain)
    async with place.connect() as lessor:
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
        before = await lessor.generate("aws")
        await place.aws.forget_calls()
        new = await rotate(lessor)
        assert {str(call["key_id"]) for call in await place.aws.calls()} == {ROOT_KEY, new}
        await until(place.keys, lambda keys: keys == {ROOT_KEY: "Inactive", new: "Active"})
        after = await lessor.generate("aws")
        assert [str(call["key_id"]) for call in await place.aws.calls("AssumeRole")] == [new]
        users = cast("list[dict[str, str]]", (await place.aws.state(SPOKE))["users"])
        assert {user["arn"] for user in users} == {before.arn, after.arn}
        for made in (before, after):
            await lessor.revoke(made.lease_id)


@pytest.mark.slow
async def test_a_root_without_a_stored_key_refuses_a_schedule(place: Place) -> None:
    hop = config_pb2.AssumeStep(role_arn="arn:aws:iam::123456789012:role/lessor")
    config = config_pb2.RootConfig(
        iam_endpoint=place.aws.url,
        sts_endpoint=place.aws.url,
        assume_chain=[hop],
        identity_token_file="/var/run/secrets/tokens/none",
        rotation_schedule="0 3 * * 0",
    )
    async with place.connect() as lessor:
        refusal = await refused(lessor.config.SetRoot(config_pb2.SetRootRequest(config=config)))
        assert refusal.code is Code.INVALID_ARGUMENT
        assert set(refusal.violations) == {"config.rotation_schedule"}
        config.rotation_schedule = ""
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
        refusal = await refused(rotate(lessor))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_NOT_ROTATABLE")


@pytest.mark.slow
@pytest.mark.fire
async def test_the_old_key_is_deleted_a_minute_later(place: Place) -> None:
    async with place.connect() as lessor:
        new = await rotate(lessor)
    await place.server.kill()
    await place.start()
    await until(place.keys, lambda keys: keys == {new: "Active"}, 75)


@pytest.mark.slow
async def test_a_second_key_is_named_and_deleted_with_delete_other_key(place: Place) -> None:
    await place.aws.touch(ROOT, "access_key")
    (other,) = set(await place.keys()) - {ROOT_KEY}
    async with place.connect() as lessor:
        refusal = await refused(rotate(lessor))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "KEY_LIMIT")
        assert other in refusal.message
        assert ROOT_KEY in refusal.message
        new = await rotate(lessor, delete_other_key=True)
        assert set(await place.keys()) == {ROOT_KEY, new}


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        pytest.param(action, kind, marks=MARKS.get(action, [pytest.mark.slow] if kind == "hang" else []))
        for action in CALLS
        for kind in ("hang", "hang_after")
    ],
)
async def test_a_rotation_that_was_killed_leaves_one_key(place: Place, action: str, kind: str) -> None:
    await kill_at(place, action, kind)


@pytest.mark.slow
@pytest.mark.fire
@pytest.mark.parametrize("action", CALLS)
async def test_a_chained_rotation_that_was_killed_leaves_one_key(place: Place, action: str) -> None:
    spoke = await place.aws.role("spoke", account=SPOKE, trusts=["123456789012"])
    config = root_at(place.aws.url, assume_chain=[config_pb2.AssumeStep(role_arn=spoke)])
    async with place.connect() as lessor:
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
    await kill_at(place, action, "hang_after")


async def kill_at(place: Place, action: str, kind: str) -> None:
    """Kill the server during a call of a rotation, restart it, and check what is left."""
    await place.aws.fault(kind, action, nth=1)
    async with place.connect() as lessor:
        asking = asyncio.get_running_loop().create_task(rotate(lessor))
        await until(lambda: place.aws.calls(action), bool, 90)
        await place.server.kill()
        await asyncio.wait([asking])
    await place.aws.clear_faults()
    await place.start()
    if action != "ListAccessKeys":  # after it the rotation has begun, and continues
        await until(place.events, lambda events: "rotated" in events, 90)
    root_key = await place.root_key()

    async def living() -> set[str]:
        return {key_id for key_id, status in (await place.keys()).items() if status == "Active"}

    await until(living, lambda keys: keys == {root_key}, 90)
    assert await place.root_key() == root_key
    if action in ("UpdateAccessKey", "DeleteAccessKey"):
        await until(place.keys, lambda keys: len(keys) == 1, 90)
    async with place.connect() as lessor:
        assert (await lessor.generate("aws")).access_key


@pytest.mark.slow
async def test_no_secret_of_a_rotation_is_in_the_log_or_the_store(place: Place) -> None:
    async with place.connect() as lessor:
        await rotate(lessor)
        await put(lessor)
        found = await credentials(lessor)
        secret, key_id = found.secret_key, found.access_key
    written = place.server.log_file.read_bytes()
    answer = [json.loads(line) for line in written.splitlines() if line.startswith(b"{")]
    asked = {(one["event"], one["subject"], one["by"]) for one in answer if "by" in one and "subject" in one}
    static = f"aws/static-creds/{USER}"
    assert asked == {
        ("rotated", "aws/root", "root"),
        ("rotated", static, "root"),
        ("static_key_read", static, "root"),
    }
    assert [one["access_key_id"] for one in answer if one["event"] == "static_key_read"] == [key_id]
    for file in place.server.data_dir.glob("lessor.db*"):
        written += file.read_bytes()
    assert b"rotated" in written
    assert secret.encode() not in written


async def test_a_static_role_is_put_read_rotated_listed_and_deleted(place: Place) -> None:
    async with place.connect() as lessor:
        role = await put(lessor)
        found = await credentials(lessor)
        assert (found.access_key, found.next_rotation_time) == (role.access_key, role.next_rotation_time)
        assert role.live_keys == 2
        await place.aws.down()
        assert (await credentials(lessor)) == found
        await place.aws.up()
        request = role_pb2.RotateStaticRoleRequest(name=USER)
        rotated = (await lessor.roles.RotateStaticRole(request, timeout=60)).static_role
        assert set(await place.keys(USER)) == {role.access_key, rotated.access_key}
        listed = await lessor.roles.ListStaticRoles(role_pb2.ListStaticRolesRequest())
        assert list(listed.static_roles) == [rotated]
        deleted = await lessor.roles.DeleteStaticRole(role_pb2.DeleteStaticRoleRequest(name=USER))
        assert not deleted.pending_keys
        assert (await refused(credentials(lessor))).code is Code.NOT_FOUND
        assert await place.keys(USER) == {}


async def test_the_keys_of_a_static_role_deleted_in_an_outage_are_deleted_after_a_kill(place: Place) -> None:
    async with place.connect() as lessor:
        role = await put(lessor)
        await place.aws.down()
        request = role_pb2.DeleteStaticRoleRequest(name=USER)
        deleted = await lessor.roles.DeleteStaticRole(request, timeout=30)
        assert list(deleted.pending_keys) == [role.access_key]
        assert (await refused(credentials(lessor))).code is Code.NOT_FOUND
        await place.server.kill()
    await place.aws.up()
    await place.start()
    await until(lambda: place.keys(USER), lambda keys: not keys, 60)


async def test_with_keep_key_a_deleted_static_role_s_key_stays_valid(place: Place) -> None:
    async with place.connect() as lessor:
        await put(lessor)
        rotate = role_pb2.RotateStaticRoleRequest(name=USER)
        current = (await lessor.roles.RotateStaticRole(rotate, timeout=60)).static_role.access_key
        request = role_pb2.DeleteStaticRoleRequest(name=USER, keep_key=True)
        assert not (await lessor.roles.DeleteStaticRole(request)).pending_keys
        assert set(await place.keys(USER)) == {current}


@pytest.mark.slow
async def test_a_mount_disabled_in_an_outage_is_removed_after_its_static_keys(
    place: Place,
) -> None:
    async with place.connect() as lessor:
        await put(lessor)
        await place.aws.down()
        await lessor.config.DisableMount(config_pb2.DisableMountRequest())
        await place.server.kill()
    await place.aws.up()
    await place.start()

    async def mounts(lessor: Lessor) -> list[str]:
        found = await lessor.config.ListMounts(config_pb2.ListMountsRequest())
        return [mount.mount for mount in found.mounts]

    async with place.connect() as lessor:
        await until(lambda: mounts(lessor), lambda names: "aws" not in names, 60)
    assert await place.keys(USER) == {}


@pytest.mark.slow
async def test_all_violations_of_a_static_role_are_returned(place: Place) -> None:
    async with place.connect() as lessor:
        refusal = await refused(put(lessor, rotation_period=Duration(seconds=45), live_keys=3))
        assert set(refusal.violations) == {"static_role.rotation_period", "static_role.live_keys"}
        await put(lessor, name="first")
        for taken, holder in ((USER, "static role aws/first"), (ROOT, "the root of mount aws")):
            refusal = await refused(put(lessor, username=taken))
            assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "STATIC_USER_TAKEN")
            assert holder in refusal.message
        await lessor.roles.DeleteStaticRole(role_pb2.DeleteStaticRoleRequest(name="first"))
        refusal = await refused(put(lessor, username="nobody"))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "STATIC_USER_UNKNOWN")
        assert not (await lessor.roles.ListStaticRoles(role_pb2.ListStaticRolesRequest())).static_roles


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "hang_after"])
async def test_a_first_key_is_created_after_a_kill(place: Place, kind: str) -> None:
    await place.aws.fault(kind, "CreateAccessKey", nth=1)
    async with place.connect() as lessor:
        asking = asyncio.get_running_loop().create_task(put(lessor))
        await until(lambda: place.aws.calls("CreateAccessKey"), bool)
        await place.server.kill()
        await asyncio.wait([asking])
        assert asking.exception() is not None
    await place.start()
    async with place.connect() as lessor:
        request = role_pb2.GetStaticRoleRequest(name=USER)

        async def key() -> str:
            return str((await lessor.roles.GetStaticRole(request)).static_role.access_key)

        if not await key():
            assert (await refused(credentials(lessor))).reason == "STATIC_KEY_PENDING"
        made = await until(key, bool, 60)
        assert set(await place.keys(USER)) == {made} == {(await credentials(lessor)).access_key}


@pytest.mark.slow
async def test_the_command_line_rotates_roots_and_static_roles(place: Place, tmp_path: Path) -> None:
    lessor_cli = CommandLine(tmp_path, place.server.client_env)
    done = await lessor_cli("rotate-root")
    assert done.fields["access_key"] == await place.root_key()
    words = ("--username", USER, "--rotation-period", "7d", "--live-keys", "1")
    stored = await lessor_cli("static-role", "put", USER, *words)
    assert (stored.fields["username"], stored.fields["live_keys"]) == (USER, "1")
    shell = await lessor_cli("static-creds", USER, "--format", "env")
    assert f"export AWS_ACCESS_KEY_ID={stored.fields['access_key']}" in shell.out
    rotated = await lessor_cli("static-role", "rotate", USER)
    listed = await lessor_cli("static-role", "list")
    assert rotated.fields["access_key"] in listed.out
    assert (await lessor_cli("static-role", "get", USER)).fields == rotated.fields
    assert (await lessor_cli("static-role", "delete", USER, "--keep-key")).code == 0
    assert set(await place.keys(USER)) == {rotated.fields["access_key"]}
    assert (await lessor_cli("static-creds", USER)).code == 5
    limited = await lessor_cli("static-role", "put", "x", "--username", "nobody", "--rotation-period", "1h")
    assert (limited.code, "STATIC_USER_UNKNOWN" in limited.err) == (7, True)
