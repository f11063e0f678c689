"""Checks static roles: their keys on the account, and what callers get."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lessor_server.domain.errors.base import Invalid, NotFound
from lessor_server.domain.errors.preconditions import (
    MountDisabling,
    RootAccountChanged,
    RootNotSet,
    StaticUserChanged,
    StaticUserUnknown,
)
from lessor_server.domain.events import Rotated, RotationFailed
from lessor_server.domain.mount import MountState
from lessor_server.domain.rotation import static_subject
from tests.support import builders
from tests.support.iam_faults import Fault, Kind
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


# --- putting one ---------------------------------------------------------------------------------------


@virtual
async def test_put_static_role_returns_after_the_first_key_is_stored() -> None:
    async with rotating() as w:
        row = await put(w)
        found = await credentials(w)
        assert keys_of(w, USER) == {found.access_key_id: "Active"} == {row.current: "Active"}
        assert works(w, found)
        assert found.next_us == row.next_us == pytest.approx(w.store.now() + 7 * 86_400 * SECOND, abs=SECOND)
        opened = PlainKeyring().open(row.sealed, f"rotations/{SUBJECT}", row.current)
        assert opened.decode() == found.secret.reveal()
        assert found.secret.reveal() not in repr(found)
        assert w.events.of(Rotated) == [Rotated(SUBJECT, row.current, "test")]


@virtual
async def test_a_key_is_read_during_an_outage() -> None:
    async with rotating() as w:
        made = await put(w)
        w.aws.away = True
        assert (await credentials(w)).access_key_id == made.current


@virtual
async def test_a_user_that_aws_does_not_know_is_refused_and_nothing_stored() -> None:
    """A name that differs only by case is not known."""
    async with rotating() as w:
        with pytest.raises(StaticUserUnknown) as raised:
            await put(w, static("nobody"))
        assert raised.value.aws is not None
        assert raised.value.aws.code == "NoSuchEntity"
        with pytest.raises(StaticUserChanged):
            await put(w, static("other", username=USER.upper()))
        assert await w.engine.static_roles.list("aws", "", 9) == []
        assert keys_of(w, USER) == {}


@virtual
async def test_all_violations_of_a_request_are_reported_before_any_call() -> None:
    async with rotating() as w:
        w.aws.sent.clear()
        with pytest.raises(Invalid) as raised:
            await put(w, static("a b", period=45))
        fields = {violation.field for violation in raised.value.violations}
        assert fields == {"static_role.name", "static_role.username", "static_role.rotation_period"}
        assert w.aws.actions() == []


@virtual
async def test_the_mount_must_be_enabled_and_have_a_root() -> None:
    async with rotating() as w:
        with pytest.raises(NotFound):
            await put(w, replace(static(), mount="nowhere"))
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(RootNotSet):
            await put(w, replace(static(), mount="bare"))
        await w.engine.mounts.tune("bare", lambda mount: replace(mount, state=MountState.DISABLING), "test")
        with pytest.raises(MountDisabling):
            await put(w, replace(static(), mount="bare"))


@virtual
async def test_the_username_is_never_changed() -> None:
    async with rotating() as w:
        w.iam.create_user("other").visible_at = 0.0
        made = await put(w)
        with pytest.raises(Invalid) as raised:
            await put(w, static(username="other"))
        assert [violation.field for violation in raised.value.violations] == ["static_role.username"]
        assert (await row_of(w, SUBJECT)).current == made.current
        assert keys_of(w, "other") == {}


@pytest.mark.parametrize("days", [1, 30])
@virtual
async def test_another_period_moves_the_next_rotation_durably(days: int) -> None:
    async with rotating() as w:
        made = await put(w)
        await asyncio.sleep(3600)
        row = await put(w, static(period=days * 86_400.0))
        assert row.current == made.current
        assert row.next_us == pytest.approx(w.store.now() + days * 86_400 * SECOND, abs=SECOND)
        await w.kill()
        await w.start()
        await asyncio.sleep(5)
        assert (await credentials(w)).next_us == row.next_us


@virtual
async def test_putting_the_same_again_changes_nothing() -> None:
    """It does not delay the next rotation."""
    async with rotating() as w:
        made = await put(w)
        await asyncio.sleep(3600)
        again = await put(w)
        assert (again.current, again.next_us) == (made.current, made.next_us)
        assert len(w.events.of(Rotated)) == 1


@virtual
async def test_concurrent_puts_of_the_same_role_create_one_key() -> None:
    async with rotating() as w:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(put(w)), group.create_task(put(w))
        assert first.result().current == second.result().current
        assert len(keys_of(w, USER)) == 1


# --- rotating ------------------------------------------------------------------------------------------


@virtual
async def test_with_two_live_keys_the_old_one_works_until_the_next_rotation() -> None:
    async with rotating() as w:
        await put(w)
        first = await credentials(w)
        await rotate_static(w)
        second = await credentials(w)
        await asyncio.sleep(3600)
        assert set(keys_of(w, USER)) == {first.access_key_id, second.access_key_id}
        assert works(w, first)
        assert works(w, second)
        third = await rotate_static(w)
        assert set(keys_of(w, USER)) == {second.access_key_id, third}


@virtual
async def test_with_one_live_key_the_old_one_is_deleted_immediately() -> None:
    async with rotating() as w:
        await put(w, static(live_keys=1))
        first = await credentials(w)
        second = await rotate_static(w)
        await asyncio.sleep(1)
        assert keys_of(w, USER) == {second: "Active"}
        assert not works(w, first)


@virtual
async def test_a_rotation_requested_after_an_answer_creates_another_key() -> None:
    """Also while the previous rotation is still deleting the old key."""
    async with rotating() as w:
        await put(w, static(live_keys=1))
        w.aws.faults.add(Fault(Kind.DELAY, "DeleteAccessKey", seconds=4.0))
        made = [await rotate_static(w) for _ in range(3)]
        assert len({*made, (await credentials(w)).access_key_id}) == 3
        await asyncio.sleep(60)
        assert keys_of(w, USER) == {made[-1]: "Active"}


@virtual
async def test_going_from_two_live_keys_to_one_deletes_the_old_one() -> None:
    async with rotating() as w:
        await put(w)
        second = await rotate_static(w)
        await put(w, static(live_keys=1))
        assert set(keys_of(w, USER)) == {second}


@virtual
async def test_a_failed_rotation_does_not_delay_other_static_roles() -> None:
    async with rotating() as w:
        for name in ("good", "bad", "slow"):
            w.iam.create_user(name).visible_at = 0.0
        made = {name: await put(w, static(name, period=3600.0)) for name in ("good", "bad")}
        made["slow"] = await put(w, static("slow", period=86_400.0))
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey", user="bad", nth=1))
        await asyncio.sleep(3603)
        assert (await credentials(w, "good")).access_key_id != made["good"].current
        assert (await credentials(w, "bad")).access_key_id == made["bad"].current
        assert [one.subject for one in w.events.of(RotationFailed)] == [static_subject("aws", "bad")]
        await asyncio.sleep(12)
        assert (await credentials(w, "bad")).access_key_id != made["bad"].current
        assert (await credentials(w, "slow")).access_key_id == made["slow"].current


@virtual
async def test_rotation_goes_on_after_a_restart() -> None:
    async with rotating() as w:
        w.iam.create_user("slow").visible_at = 0.0
        made, slow = await put(w, static(period=3600.0)), await put(w, static("slow"))
        await w.kill()
        await w.start()
        await asyncio.sleep(3700)
        assert (await credentials(w)).access_key_id != made.current
        assert (await credentials(w, "slow")).access_key_id == slow.current


@virtual
async def test_a_recreated_user_is_not_rotated() -> None:
    async with rotating() as w:
        await put(w, static(period=3600.0))
        w.iam.forget(USER)
        w.iam.create_user(USER).visible_at = 0.0
        theirs = w.iam.create_access_key(USER).id
        for attempt in (rotate_static(w), put(w)):
            with pytest.raises(StaticUserChanged):
                await attempt
        await asyncio.sleep(2 * 3600)
        assert keys_of(w, USER) == {theirs: "Active"}
        await w.engine.static_roles.delete("aws", USER, "test")
        assert (await put(w)).current in keys_of(w, USER)


@virtual
async def test_a_root_of_another_account_rotates_nothing() -> None:
    """There the user of the same name is another one."""
    async with rotating() as w:
        await put(w)
        w.other_iam.create_user(USER).visible_at = 0.0
        w.store.rows.clear()
        w.aws.accounts[builders.OTHER_ROOT_KEY] = w.other_iam
        await set_root(w, builders.OTHER_ROOT_KEY)
        with pytest.raises(RootAccountChanged):
            await rotate_static(w)
        assert w.other_iam.users[USER].keys == {}


# --- listing and forgetting ----------------------------------------------------------------------------


@virtual
async def test_static_roles_are_listed_by_name() -> None:
    async with rotating() as w:
        for name in ("b", "a", "c"):
            w.iam.create_user(name).visible_at = 0.0
            await put(w, static(name))
        names = [row.name for row in await w.engine.static_roles.list("aws", "", 2)]
        rest = [row.name for row in await w.engine.static_roles.list("aws", "b", 2)]
        assert (names, rest) == (["a", "b"], ["c"])
        assert (await w.engine.static_roles.get("aws", "b")).user_name == "b"
