"""Checks which roots can be rotated, and how SetRoot and a rotation affect each other."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import Aborted, Invalid, LessorError, NotFound
from lessor_server.domain.errors.preconditions import (
    KeyLimit,
    MountDisabling,
    RootKeyInUse,
    RootKeyRotatedAway,
    RootNotRotatable,
    RootNotSet,
    StaticUserTaken,
)
from lessor_server.domain.events import RotationFailed
from lessor_server.domain.mount import MountState
from lessor_server.domain.root import Hop, to_plain
from lessor_server.domain.rotation import Phase
from lessor_server.domain.schedule import NEVER
from lessor_server.domain.secret import Secret
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.engine import EngineConfig
from tests.support import builders
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_home import ROOT
from tests.support.plain_keyring import PlainKeyring
from tests.support.rotating import (
    USER,
    credentials,
    keys_of,
    put,
    root_key,
    rotate,
    rotating,
    row_of,
    set_root,
)
from tests.support.virtual_loop import virtual

HOUR = timedelta(hours=1)


@virtual
async def test_only_a_user_s_stored_key_can_be_rotated() -> None:
    async with rotating() as w:
        w.iam.forget(ROOT)
        w.iam.dead_keys.clear()
        w.iam.sts.root_arn = "arn:aws:iam::123456789012:root"
        with pytest.raises(RootNotRotatable):
            await rotate(w)
        w.iam.sts.root_arn = ""
        chain = (Hop("arn:aws:iam::123456789012:role/lessor"),)
        token = replace(builders.root_config(), access_key="", secret_key=Secret(), assume_chain=chain)
        token = replace(token, identity_token_file="/var/run/secrets/tokens/aws")
        await w.engine.mounts.set_root("aws", "", lambda _: token, "test")
        with pytest.raises(RootNotRotatable):
            await rotate(w)
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(RootNotSet):
            await w.engine.root_keys.rotate("bare", "test", delete_other_key=False)
        with pytest.raises(NotFound):
            await w.engine.root_keys.rotate("nowhere", "test", delete_other_key=False)
        await w.engine.mounts.tune("bare", lambda mount: replace(mount, state=MountState.DISABLING), "test")
        with pytest.raises(MountDisabling):
            await w.engine.root_keys.rotate("bare", "test", delete_other_key=False)


@virtual
async def test_a_schedule_without_a_key_is_refused_and_one_that_is_stored_counts_as_none() -> None:
    """An earlier version accepted it. Such a row becomes idle at the first start."""
    async with rotating(limits=EngineConfig(root_rules=RootRules(ambient_mounts=("aws",)))) as w:
        keyless = replace(builders.root_config(), access_key="", secret_key=Secret(), rotation_period=HOUR)
        with pytest.raises(Invalid) as raised:
            await w.engine.mounts.set_root("aws", "", lambda _: keyless, "test")
        assert [one.field for one in raised.value.violations] == ["config.rotation_period"]
        await set_root(w, rotation_period=HOUR)
        sealed = PlainKeyring().seal(json.dumps(to_plain(keyless)).encode(), "roots/aws", "9")
        w.store.roots["aws"] = replace(w.store.roots["aws"], sealed=sealed, version=9)
        w.aws.accounts[""] = w.iam
        await w.kill()
        await asyncio.sleep(7200)
        await w.start()
        await asyncio.sleep(7200)
        assert len(w.events.of(RotationFailed)) <= 1
        row = await row_of(w)
        assert (row.schedule, row.next_us, row.due_us) == (NEVER, 0, 0)
        with pytest.raises(RootNotRotatable):
            await rotate(w)
        w.iam.create_user("other").visible_at = 0.0
        other = w.iam.create_access_key("other").id
        await set_root(w, other, secret_key=Secret("theirs"))
        assert (await row_of(w)).next_us > w.store.now()


@virtual
async def test_a_key_that_was_rotated_away_is_not_set_again() -> None:
    """A tool that knows only the first key would otherwise set it again."""
    async with rotating() as w:
        await rotate(w)
        with pytest.raises(RootKeyRotatedAway) as raised:
            await set_root(w, builders.ROOT_KEY)
        assert raised.value.reason == "ROOT_KEY_ROTATED_AWAY"
        new = await root_key(w)
        await w.engine.mounts.set_root("aws", "", lambda before: before, "test")
        assert await root_key(w) == new


@virtual
async def test_a_key_that_was_rotated_away_is_refused_as_another_mount_s_root() -> None:
    async with rotating() as w:
        await w.engine.mounts.enable(builders.mount("second"), "test")
        first = builders.root_config()
        await rotate(w)
        with pytest.raises(RootKeyRotatedAway, match="the root of mount aws"):
            await w.engine.mounts.set_root("second", "", lambda _: first, "test")
        assert await w.store.get_root("second") is None
        assert await rotate(w) == await root_key(w)


@virtual
async def test_a_mount_that_shares_a_rotated_key_keeps_it_and_can_be_changed() -> None:
    async with rotating() as w:
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.engine.mounts.set_root("second", "", lambda _: builders.root_config(), "test")
        await rotate(w)
        await w.engine.mounts.set_root("second", "", lambda root: replace(root, max_retries=1), "test")
        assert await root_key(w, "second") == builders.ROOT_KEY


@virtual
async def test_the_key_of_a_static_role_is_refused_as_root() -> None:
    """Its next rotation would delete it."""
    async with rotating() as w:
        await put(w)
        key = (await credentials(w)).access_key_id
        with pytest.raises(StaticUserTaken, match=f"static role aws/{USER}"):
            await set_root(w, key)
        assert await root_key(w) == builders.ROOT_KEY


@virtual
async def test_a_key_set_during_a_rotation_ends_it_and_its_new_key() -> None:
    async with rotating() as w:
        w.iam.visible_after = 20.0
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        w.iam.create_user("other").visible_at = 0.0
        w.iam.visible_after = 0.0
        other = w.iam.create_access_key("other").id
        w.aws.accounts[other] = w.iam
        await set_root(w, other)
        with pytest.raises(Aborted):
            await calling
        assert await root_key(w) == other
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
        assert (await row_of(w)).phase is Phase.IDLE
        assert await rotate(w) in keys_of(w, "other")


@virtual
async def test_another_field_set_during_a_rotation_does_not_end_it() -> None:
    async with rotating() as w:
        w.iam.visible_after = 10.0
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        await set_root(w, region="eu-west-1")
        new = await calling
        config = (await w.engine.mounts.get_root("aws")).config
        assert (config.access_key, config.region) == (new, "eu-west-1")


@virtual
async def test_after_another_root_is_set_the_old_key_is_still_deleted() -> None:
    async with rotating() as w:
        new = await rotate(w)
        w.iam.create_user("other").visible_at = 0.0
        other = w.iam.create_access_key("other").id
        w.aws.accounts[other] = w.iam
        await set_root(w, other)
        w.aws.faults.add(Fault(Kind.REFUSE, "UpdateAccessKey", nth=1))
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", nth=1))
        await asyncio.sleep(90)
        assert set(keys_of(w)) == {new}
        assert (await row_of(w)).phase is Phase.IDLE


@virtual
async def test_a_key_that_another_mount_uses_is_kept() -> None:
    async with rotating() as w:
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.set_root("second")
        new = await rotate(w)
        await asyncio.sleep(600)
        assert keys_of(w) == {builders.ROOT_KEY: "Active", new: "Active"}
        assert "ROOT_KEY_OF_THE_TESTS is the root of mount second" in (await row_of(w)).last_error
        with pytest.raises(KeyLimit):
            await w.engine.root_keys.rotate("second", "test", delete_other_key=False)
        with pytest.raises(RootKeyInUse):
            await w.engine.root_keys.rotate("second", "test", delete_other_key=True)
        config = (await w.engine.mounts.get_root("aws")).config
        await w.engine.mounts.set_root("second", "", lambda _: config, "test")
        await asyncio.sleep(1000)
        assert keys_of(w) == {new: "Active"}


@virtual
async def test_a_key_created_by_an_operator_and_set_as_root_is_not_a_lost_one() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DROP, "CreateAccessKey", times=2))
        with pytest.raises(LessorError):
            await rotate(w)
        by_hand = w.iam.create_access_key(ROOT).id
        await set_root(w, by_hand)
        await asyncio.sleep(30 * 60)
        assert keys_of(w) == {builders.ROOT_KEY: "Active", by_hand: "Active"}
        assert (await row_of(w)).phase is Phase.IDLE


@pytest.mark.parametrize("elsewhere", [False, True], ids=["another user", "another account"])
@virtual
async def test_a_late_key_is_not_searched_for_among_the_keys_of_another_user(
    elsewhere: bool,
) -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DROP, "CreateAccessKey", nth=1))
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey", nth=2))
        with pytest.raises(LessorError):
            await rotate(w)
        assert (await row_of(w)).last_check_us > 0
        account, user, key = w.other_iam, ROOT, builders.OTHER_ROOT_KEY
        if elsewhere:
            account.adopt_root(key)
        else:
            account, user = w.iam, "other"
            account.create_user(user).visible_at = 0.0
            key = account.create_access_key(user).id
            w.aws.accounts[key] = account
        made_by_a_person = account.create_access_key(user).id
        await set_root(w, key)
        with pytest.raises(KeyLimit):
            await rotate(w)
        await asyncio.sleep(20 * 60)
        assert {one.id for one in account.users[user].keys.values()} == {key, made_by_a_person}
