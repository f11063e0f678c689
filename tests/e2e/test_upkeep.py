"""Checks what operators do with many leases: prefixes, abandoning, disabling, reconciling."""

from __future__ import annotations

from collections.abc import AsyncIterable
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from lessor.v1 import config_pb2, lease_pb2, role_pb2
from lessor.v1.creds_pb2 import GenerateCredentialsResponse
from tests.support.clients import (
    ROOT_KEY,
    SECONDS,
    Lessor,
    connect,
    lease_of,
    nothing_left,
    refused,
    until,
    users_of,
)
from tests.support.foreign_users import make_user
from tests.support.server_process import serving
from tests.support.standin_control import Json, StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State, Kind = lease_pb2.Lease.State, lease_pb2.ReconcileResponse.Kind
HOUR = 3600.0


async def revoke_prefix(
    lessor: Lessor, prefix: str, *, sync: bool = True
) -> list[lease_pb2.RevokePrefixResponse]:
    """Revoke a prefix and return every message of the stream."""
    request = lease_pb2.RevokePrefixRequest(prefix=prefix, sync=sync)
    stream: AsyncIterable[lease_pb2.RevokePrefixResponse] = lessor.leases.RevokePrefix(
        request, timeout=SECONDS
    )
    return [message async for message in stream]


async def abandon(lessor: Lessor, **which: str) -> int:
    """Abandon a lease or a prefix and return how many."""
    return (await lessor.leases.AbandonLeases(lease_pb2.AbandonLeasesRequest(**which))).abandoned


async def reconcile(
    lessor: Lessor, mount: str, *, apply: bool = False, instance: str = ""
) -> dict[str, Json]:
    """Compare the account with the leases and return the findings by the user's name."""
    request = lease_pb2.ReconcileRequest(mount=mount, apply=apply, instance=instance)
    stream: AsyncIterable[lease_pb2.ReconcileResponse] = lessor.leases.Reconcile(request, timeout=SECONDS)
    return {
        one.user_name: {"kind": Kind.Name(one.kind), "lease_id": one.lease_id, "applied": one.applied}
        async for one in stream
    }


async def disable(lessor: Lessor, mount: str, *, force: bool = False) -> config_pb2.DisableMountResponse:
    """Disable a mount."""
    return await lessor.config.DisableMount(config_pb2.DisableMountRequest(mount=mount, force=force))


async def mounts(lessor: Lessor) -> set[str]:
    """Return the names of the mounts."""
    return {one.mount for one in (await lessor.config.ListMounts(config_pb2.ListMountsRequest())).mounts}


async def user_of(aws: StandIn, lease_id: str) -> str:
    """Return the name of a lease's user on AWS."""
    (name,) = [name for name, user in (await aws.users("/lessor/")).items() if lease_of(user) == lease_id]
    return name


# --- prefixes --------------------------------------------------------------------------------------------


async def test_a_prefix_is_not_a_pattern(lessor: Lessor, aws: StandIn, mount: str) -> None:
    made: dict[str, GenerateCredentialsResponse] = {}
    for role in ("a_b", "a-b", "a.b", "axb", "a_b2", "A_B"):
        await lessor.put_role(mount, role)
        made[role] = await lessor.generate(mount, role)
    messages = await revoke_prefix(lessor, f"{mount}/creds/a_b/")
    assert (messages[-1].accepted, messages[-1].done, messages[-1].left) == (1, 1, 0)
    states = {role: (await lessor.lookup(lease.lease_id)).state for role, lease in made.items()}
    assert states.pop("a_b") == State.GONE
    assert set(states.values()) == {State.ACTIVE}
    assert len(await users_of(aws, mount)) == 5


async def test_a_mount_is_not_a_pattern(lessor: Lessor, aws: StandIn, mount: str) -> None:
    names = (f"{mount}_y", f"{mount}-y", f"{mount}_y2")
    for name in names:
        await lessor.enable(name, aws.url)
        await lessor.put_role(name)
        await lessor.generate(name)
    await revoke_prefix(lessor, f"{mount}_y/")
    assert [len(await users_of(aws, name)) for name in names] == [0, 1, 1]


async def test_a_stream_reports_progress(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    for _ in range(6):
        await lessor.generate(mount)
    await aws.latency(0.3)
    messages = await revoke_prefix(lessor, f"{mount}/creds/")
    first, last = messages[0], messages[-1]
    assert (first.accepted, first.done, first.failed, first.left) == (6, 0, 0, 6)
    assert (last.accepted, last.done, last.failed, last.left) == (6, 6, 0, 0)
    assert all(one.accepted == one.done + one.failed + one.left for one in messages)
    assert all(earlier != later for earlier, later in pairwise(messages)), "the same message was sent twice"
    assert [one.done for one in messages] == sorted(one.done for one in messages)
    assert await users_of(aws, mount) == []


@pytest.mark.slow
async def test_a_failed_lease_does_not_stop_the_others(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    leases = [(await lessor.generate(mount)).lease_id for _ in range(4)]
    await aws.fault("refuse", "DeleteAccessKey", user=await user_of(aws, leases[1]))
    last = (await revoke_prefix(lessor, f"{mount}/"))[-1]
    assert (last.accepted, last.done, last.failed) == (4, 3, 1)
    assert [lease_of(user) for user in await users_of(aws, mount)] == [leases[1]]
    assert (await lessor.lookup(leases[1])).state == State.REVOKING
    await aws.clear_faults()
    await nothing_left(aws, mount)


async def test_without_sync_the_stream_is_one_message(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    before = [(await lessor.generate(mount)).lease_id for _ in range(3)]
    (only,) = await revoke_prefix(lessor, f"{mount}/", sync=False)
    assert (only.accepted, only.left) == (3, 3)
    after = (await lessor.generate(mount)).lease_id
    for lease in before:  # written after AWS has deleted the user
        await until(lambda one=lease: lessor.lookup(one), lambda found: found.state == State.GONE)  # type: ignore[misc]
    assert [lease_of(user) for user in await users_of(aws, mount)] == [after]


async def test_a_prefix_of_one_owner_leaves_the_leases_of_others(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    lease = (await lessor.generate(mount)).lease_id
    for owner, accepted in (("nobody", 0), ("root", 1)):
        request = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", sync=True, owner=owner)
        messages = [message async for message in lessor.leases.RevokePrefix(request)]
        assert (messages[0].accepted, messages[-1].done) == (accepted, accepted)
        state = State.GONE if accepted else State.ACTIVE
        assert (await lessor.lookup(lease)).state == state
    assert await users_of(aws, mount) == []


@pytest.mark.parametrize(
    "prefix", ["", "aws", "aws/cre", "aws/creds/app", "aws/roles/", "%/", "aws/creds/*/"]
)
async def test_a_malformed_prefix_is_refused(lessor: Lessor, prefix: str) -> None:
    refusal = await refused(revoke_prefix(lessor, prefix))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["prefix"]


async def test_a_role_can_be_deleted_with_its_leases(lessor: Lessor, aws: StandIn, mount: str) -> None:
    for role in ("a_b", "a-b"):
        await lessor.put_role(mount, role)
        await lessor.generate(mount, role)
    request = role_pb2.DeleteRoleRequest(mount=mount, name="a_b", revoke_leases=True)
    await lessor.roles.DeleteRole(request)
    left = await until(lambda: users_of(aws, mount), lambda users: len(users) < 2)
    assert [lease_of(user).split("/")[2] for user in left] == ["a-b"]


# --- abandoning ------------------------------------------------------------------------------------------


async def test_an_abandoned_lease_is_reported_and_can_be_revoked(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    lease = (await lessor.generate(mount)).lease_id
    user = await user_of(aws, lease)
    await aws.fault("refuse", "DeleteAccessKey", user=user)
    await lessor.revoke(lease)
    assert await abandon(lessor, lease_id=lease) == 1
    assert (await lessor.lookup(lease)).state == State.ABANDONED
    assert (await reconcile(lessor, mount, apply=True))[user] == {
        "kind": "ABANDONED_USER",
        "lease_id": lease,
        "applied": False,
    }
    await aws.clear_faults()
    assert (await lessor.revoke(lease)).outcome == lease_pb2.RevokeLeaseResponse.GONE
    assert user not in await reconcile(lessor, mount)


async def test_a_prefix_abandons_only_leases_in_revocation(lessor: Lessor, mount: str) -> None:
    """The key of a live lease would outlive its expiry."""
    await lessor.put_role(mount)
    lease = (await lessor.generate(mount)).lease_id
    assert await abandon(lessor, prefix=f"{mount}/") == 0
    assert (await lessor.lookup(lease)).state == State.ACTIVE
    assert await abandon(lessor, lease_id=lease) == 1
    assert (await lessor.lookup(lease)).state == State.ABANDONED
    assert (await lessor.revoke(lease)).outcome == lease_pb2.RevokeLeaseResponse.GONE
    for which in ({}, {"lease_id": lease, "prefix": f"{mount}/"}):
        assert (await refused(abandon(lessor, **which))).code is grpc.StatusCode.INVALID_ARGUMENT


# --- disabling -------------------------------------------------------------------------------------------


async def test_a_disabled_mount_is_removed_when_its_leases_are_gone(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    for _ in range(3):
        await lessor.generate(mount)
    await aws.fault("delay", "DeleteUser", seconds=2.0)
    answer = await disable(lessor, mount)
    assert (answer.mount.state, answer.leases_left) == (config_pb2.Mount.DISABLING, 3)
    assert (await refused(lessor.generate(mount))).reason == "MOUNT_DISABLING"
    await until(lambda: mounts(lessor), lambda names: mount not in names)
    assert await users_of(aws, mount) == []
    assert (await refused(lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name="app")))).code is (
        grpc.StatusCode.NOT_FOUND
    )
    await lessor.enable(mount, aws.url)
    assert (await refused(lessor.generate(mount))).code is grpc.StatusCode.NOT_FOUND


async def test_a_mount_keeps_its_root_until_no_lease_is_left(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    leases = [(await lessor.generate(mount)).lease_id for _ in range(2)]
    await aws.fault("refuse", "DeleteAccessKey")
    await disable(lessor, mount)
    await until(lambda: lessor.lookup(leases[0]), lambda lease: lease.attempts > 0)
    root = await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount))
    assert root.config.access_key == ROOT_KEY
    assert (await disable(lessor, mount, force=True)).leases_left == 2
    await until(lambda: mounts(lessor), lambda names: mount not in names)
    assert [(await lessor.lookup(lease)).state for lease in leases] == [State.ABANDONED] * 2
    assert len(await users_of(aws, mount)) == 2


# --- reconciling -----------------------------------------------------------------------------------------


async def test_users_without_our_path_or_tags_are_ignored(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    await lessor.generate(mount)
    instance = (await lessor.info()).instance_id
    path, tags = f"/lessor/{instance}/", {"lessor:instance": instance}
    await aws.touch("a-person", "user", "access_key")
    await make_user(aws, "young", path, tags, age=0)
    await make_user(aws, "other-instance", path, {"lessor:instance": "f" * 16}, age=HOUR)
    found = await reconcile(lessor, mount, apply=True)
    assert {"a-person", "young"}.isdisjoint(found)
    assert not found.get("other-instance", {}).get("applied")
    assert {"a-person", "young", "other-instance"} <= set(await aws.users())
    for name in ("young", "other-instance"):
        await aws.forget(name)


async def test_a_root_that_was_never_used_can_be_reconciled(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await aws.forget_calls()
    await reconcile(lessor, mount)
    assert await aws.calls("ListUsers") != []


@pytest.mark.slow
async def test_users_of_a_lost_server_are_revoked_with_its_id_and_apply(
    lessor: Lessor, aws: StandIn, mount: str, tmp_path: Path
) -> None:
    await lessor.put_role(mount)
    await lessor.generate(mount)
    async with (
        serving(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as lost,
        connect(lost.address, lost.token) as other,
    ):
        await other.enable("lost", aws.url)
        await other.put_role("lost")
        await aws.account(clock_offset=-HOUR)
        lease = (await other.generate("lost")).lease_id
        await aws.account(clock_offset=0)
        instance = (await other.info()).instance_id
    user = await user_of(aws, lease)
    await aws.touch(user, "login_profile", "ssh_key")
    finding = {"kind": "UNKNOWN_USER", "lease_id": lease, "applied": False}
    assert await reconcile(lessor, mount, instance=instance) == {user: finding}
    assert await reconcile(lessor, mount, apply=True, instance=instance) == {
        user: finding | {"applied": True}
    }
    await until(aws.users, lambda users: user not in users)
    assert await reconcile(lessor, mount, instance=instance) == {}
