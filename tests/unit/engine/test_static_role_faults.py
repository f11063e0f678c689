"""Checks static roles whose user has other keys, whose calls fail, or whose user is in another account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from lessor_server.domain.errors.base import (
    AwsUnavailable,
    KeyNotAccepted,
    LessorError,
    NotFound,
    StaticKeyPending,
)
from lessor_server.domain.errors.preconditions import (
    KeyLimit,
    StaticKeyInUse,
    StaticUserChanged,
    StaticUserTaken,
)
from lessor_server.domain.events import LostKeyDeleted
from lessor_server.domain.root import Hop
from lessor_server.domain.rotation import Rotation, static_subject
from lessor_server.domain.secret import Secret
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.engine import EngineConfig
from tests.support import builders
from tests.support.engine_world import OTHER_ACCOUNT, World
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_home import ROOT
from tests.support.plain_keyring import PlainKeyring
from tests.support.rotating import (
    USER,
    credentials,
    keys_of,
    put,
    rotate_static,
    rotating,
    row_of,
    set_root,
    static,
    works,
)
from tests.support.virtual_loop import virtual

SUBJECT = static_subject("aws", USER)
SECOND = 1_000_000


# --- keys of others ------------------------------------------------------------------------------------


async def put_beside(w: World, name: str) -> None:
    """Store a second static role of the same user, as an earlier version took it."""
    w.iam.create_user("spare").visible_at = 0.0
    made = await put(w, static(name, username="spare"))
    key = w.iam.create_access_key(USER)
    sealed = PlainKeyring().seal(key.secret.encode(), f"rotations/{made.subject}", key.id)
    user_id = w.iam.users[USER].id
    w.store.rotations[made.subject] = replace(
        await row_of(w, made.subject), user_name=USER, user_id=user_id, current=key.id, sealed=sealed
    )


@virtual
async def test_the_key_of_another_static_role_is_never_deleted() -> None:
    """Not even with delete_other_key."""
    async with rotating() as w:
        await put(w)
        await put_beside(w, "second")
        with pytest.raises(StaticKeyInUse) as raised:
            await w.engine.static_roles.rotate("aws", "second", "test", delete_other_key=True)
        assert f"static role aws/{USER}" in raised.value.message
        assert works(w, await credentials(w))
        assert works(w, await credentials(w, "second"))


@virtual
async def test_a_root_rotation_does_not_delete_the_key_of_a_static_role() -> None:
    async with rotating() as w:
        await put(w)
        await set_root(w, w.iam.create_access_key(USER).id)
        with pytest.raises(StaticKeyInUse):
            await w.engine.root_keys.rotate("aws", "test", delete_other_key=True)
        assert works(w, await credentials(w))
        await w.engine.static_roles.delete("aws", USER, "test")
        assert await w.engine.root_keys.rotate("aws", "test", delete_other_key=True)


# --- users that are taken ------------------------------------------------------------------------------


@virtual
async def test_the_user_of_another_static_role_is_refused() -> None:
    async with rotating() as w:
        await put(w)
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.set_root("second")
        before = keys_of(w, USER)
        w.aws.sent.clear()
        for mount in ("aws", "second"):
            with pytest.raises(StaticUserTaken) as raised:
                await put(w, replace(static("other", username=USER), mount=mount))
            assert f"user {USER} already belongs to static role aws/{USER}" in raised.value.message
            assert await w.store.get_rotation(static_subject(mount, "other")) is None
        assert keys_of(w, USER) == before
        assert set(w.aws.actions()) <= {"GetUser", "GetCallerIdentity"}
        await w.engine.static_roles.delete("aws", USER, "test")
        assert (await put(w, replace(static("other", username=USER), mount="second"))).current


@virtual
async def test_of_two_concurrent_requests_for_a_user_one_succeeds() -> None:
    async with rotating() as w:
        async with asyncio.TaskGroup() as group:
            roles = [static(name, username=USER) for name in ("first", "second")]
            putting = [group.create_task(outcome(put(w, role))) for role in roles]
        made = [task.result() for task in putting if isinstance(task.result(), Rotation)]
        refused = [task.result() for task in putting if isinstance(task.result(), StaticUserTaken)]
        assert (len(made), len(refused)) == (1, 1)
        assert len(keys_of(w, USER)) == 1


@pytest.mark.parametrize("mount", ["aws", "second"])
@virtual
async def test_the_user_of_a_root_is_refused(mount: str) -> None:
    """Also that of another mount's root, or behind a chain."""
    async with rotating() as w:
        w.iam.create_user("hub").visible_at = 0.0
        hop = Hop(w.iam.peer(OTHER_ACCOUNT).add_role("spoke").arn)
        await w.engine.mounts.enable(builders.mount("second"), "test")
        config = replace(
            builders.root_config(), access_key=w.iam.create_access_key("hub").id, assume_chain=(hop,)
        )
        await w.engine.mounts.set_root("second", "", lambda _: config, "test")
        user = ROOT if mount == "aws" else "hub"
        before = keys_of(w, user)
        with pytest.raises(StaticUserTaken) as raised:
            await put(w, static("other", username=user), delete_other_key=True)
        assert f"the root of mount {mount}" in raised.value.message
        assert await w.store.get_rotation(static_subject("aws", "other")) is None
        assert keys_of(w, user) == before


@virtual
async def test_the_user_of_the_server_s_own_credentials_is_refused() -> None:
    """No mount has its key, so AWS is asked who the root is."""
    async with rotating(limits=EngineConfig(root_rules=RootRules(ambient_mounts=("aws",)))) as w:
        w.aws.accounts[""] = w.iam
        keyless = replace(builders.root_config(), access_key="", secret_key=Secret())
        await w.engine.mounts.set_root("aws", "", lambda _: keyless, "test")
        w.iam.users[ROOT].id = "AIDALESSORROOTUSER000"
        with pytest.raises(StaticUserTaken):
            await put(w, static("other", username=ROOT))
        assert set(keys_of(w)) == {builders.ROOT_KEY}
        assert (await put(w)).current


async def outcome(putting: Awaitable[Rotation]) -> Rotation | LessorError:
    """Return what a call comes to."""
    try:
        return await putting
    except LessorError as error:
        return error


@virtual
async def test_two_keys_of_others_are_named_and_nothing_is_stored() -> None:
    async with rotating() as w:
        theirs = [w.iam.create_access_key(USER).id for _ in range(2)]
        with pytest.raises(KeyLimit) as raised:
            await put(w)
        assert all(key_id in str(raised.value) for key_id in theirs)
        assert list(keys_of(w, USER)) == theirs
        assert await w.store.get_rotation(SUBJECT) is None


@virtual
async def test_delete_other_key_deletes_the_oldest_key_of_others() -> None:
    async with rotating() as w:
        older = w.iam.create_access_key(USER).id
        await asyncio.sleep(60)
        newer = w.iam.create_access_key(USER).id
        made = await put(w, delete_other_key=True)
        assert set(keys_of(w, USER)) == {newer, made.current}
        assert older != newer


@virtual
async def test_one_key_of_others_leaves_room_for_one() -> None:
    async with rotating() as w:
        theirs = w.iam.create_access_key(USER).id
        made = await put(w, static(live_keys=1))
        assert set(keys_of(w, USER)) == {theirs, made.current}
        with pytest.raises(KeyLimit):
            await rotate_static(w)
        assert set(keys_of(w, USER)) == {theirs, made.current}


@pytest.mark.parametrize("ended", [False, True])
@virtual
async def test_keys_of_a_recreated_user_are_not_lost_ones(ended: bool) -> None:
    async with rotating() as w:
        await put(w)
        w.aws.faults.add(Fault(Kind.HANG, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await rotate_static(w)
        w.iam.forget(USER)
        w.iam.create_user(USER).visible_at = 0.0
        theirs = w.iam.create_access_key(USER).id
        if ended:
            await w.engine.static_roles.delete("aws", USER, "test")
        else:
            with pytest.raises(StaticUserChanged):
                await rotate_static(w)
        await asyncio.sleep(3600)
        assert keys_of(w, USER) == {theirs: "Active"}


# --- when AWS is not well ------------------------------------------------------------------------------


@virtual
async def test_a_first_key_with_an_unknown_outcome_keeps_the_role() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await put(w)
        with pytest.raises(StaticKeyPending):
            await credentials(w)
        await asyncio.sleep(60)
        assert works(w, await credentials(w))
        await asyncio.sleep(20 * 60)
        assert set(keys_of(w, USER)) == {(await credentials(w)).access_key_id}


@virtual
async def test_a_first_key_that_is_not_verified_leaves_nothing() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey"))
        with pytest.raises(KeyNotAccepted) as raised:
            await put(w)
        assert raised.value.aws is not None
        assert keys_of(w, USER) == {}
        with pytest.raises(NotFound):
            await credentials(w)


@virtual
async def test_the_key_of_a_user_without_permissions_is_verified() -> None:
    """IAM denies GetUser, which shows that it accepted the key."""
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKeyOnIam"))
        assert (await put(w)).current in keys_of(w, USER)


@virtual
async def test_a_late_key_of_a_static_role_is_deleted() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DELAY, "CreateAccessKey", nth=1, seconds=600))
        made = await put(w)
        await asyncio.sleep(620)
        assert len(keys_of(w, USER)) == 2
        await asyncio.sleep(400)
        assert set(keys_of(w, USER)) == {made.current}
        assert len(w.events.of(LostKeyDeleted)) == 1


@virtual
async def test_a_key_that_existed_before_is_not_a_late_one() -> None:
    async with rotating() as w:
        theirs = w.iam.create_access_key(USER).id
        w.aws.faults.add(Fault(Kind.DROP, "CreateAccessKey", nth=1))
        made = await put(w, static(live_keys=1))
        await asyncio.sleep(30 * 60)
        assert set(keys_of(w, USER)) == {theirs, made.current}
        assert (await row_of(w, SUBJECT)).last_check_us == 0


# --- another account -----------------------------------------------------------------------------------


@virtual
async def test_a_user_of_another_account_is_rotated_through_a_chain() -> None:
    async with rotating() as w:
        other = w.iam.peer(OTHER_ACCOUNT)
        role = other.add_role("keys", external_id="outside")
        other.create_user(USER).visible_at = 0.0
        made = await put(w, static(chain=(Hop(role.arn, "outside"),)))
        assert set(other.users[USER].keys) == {made.current}
        assert keys_of(w, USER) == {}
        assert made.account == f"aws:{OTHER_ACCOUNT}"
        second = await rotate_static(w)
        assert set(other.users[USER].keys) == {made.current, second}
        leased = await w.issue()
        assert leased.arn.split(":")[4] == builders.ACCOUNT.rpartition(":")[2]


@virtual
async def test_a_chain_that_aws_refuses_stores_nothing() -> None:
    async with rotating() as w:
        other = w.iam.peer(OTHER_ACCOUNT)
        role = other.add_role("keys", external_id="outside")
        other.create_user(USER).visible_at = 0.0
        with pytest.raises(LessorError) as raised:
            await put(w, static(chain=(Hop(role.arn),)))
        assert raised.value.reason == "ROOT_REFUSED"
        assert await w.store.get_rotation(SUBJECT) is None
