"""Checks what happens to the keys of a deleted static role."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.base import Aborted, AwsUnavailable, NotFound
from lessor_server.domain.errors.preconditions import RootRefused, StaticUserTaken
from lessor_server.domain.events import KeyLeft, KeyRetired
from lessor_server.domain.rotation import Phase, static_subject
from tests.support import builders
from tests.support.engine_world import World
from tests.support.iam_faults import Fault, Kind
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
)
from tests.support.virtual_loop import virtual

SUBJECT = static_subject("aws", USER)


async def delete(w: World, *, keep_key: bool = False) -> tuple[str, ...]:
    """Delete the static role as an operator does; return the keys that are still to go."""
    return await w.engine.static_roles.delete("aws", USER, "test", keep_key=keep_key)


async def gone(w: World) -> bool:
    """Tell whether nothing is left of the static role."""
    return await w.store.get_rotation(SUBJECT) is None


async def lose_a_key(w: World) -> None:
    """Let the answers be lost that bring the next key."""
    w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
    with pytest.raises(AwsUnavailable):
        await rotate_static(w)
    assert (await row_of(w, SUBJECT)).phase is Phase.INTENDED


@virtual
async def test_both_keys_of_a_deleted_static_role_are_deleted() -> None:
    """The user stays."""
    async with rotating() as w:
        first = await put(w)
        second = await rotate_static(w)
        assert await delete(w) == ()
        assert keys_of(w, USER) == {}
        assert USER in w.iam.users
        assert {event.access_key_id for event in w.events.of(KeyRetired)} == {first.current, second}
        assert await gone(w)
        for call in (credentials(w), rotate_static(w), w.engine.static_roles.get("aws", USER), delete(w)):
            with pytest.raises(NotFound):
                await call


@virtual
async def test_a_key_of_others_is_not_deleted() -> None:
    async with rotating() as w:
        theirs = w.iam.create_access_key(USER).id
        await put(w)
        await delete(w)
        assert keys_of(w, USER) == {theirs: "Active"}


@virtual
async def test_with_keep_key_the_current_key_stays_valid() -> None:
    async with rotating() as w:
        await put(w)
        current = await rotate_static(w)
        assert await delete(w, keep_key=True) == ()
        assert keys_of(w, USER) == {current: "Active"}
        assert await gone(w)


@virtual
async def test_during_an_outage_the_keys_are_deleted_later() -> None:
    """For callers the role is already deleted."""
    async with rotating() as w:
        made = await put(w)
        w.aws.away = True
        assert await delete(w) == (made.current,)
        row = await row_of(w, SUBJECT)
        assert (row.ending, row.sealed, row.fresh_sealed) == (True, b"", b"")
        assert await w.engine.static_roles.list("aws", "", 9) == []
        with pytest.raises(NotFound):
            await credentials(w)
        w.aws.away = False
        await asyncio.sleep(120)
        assert keys_of(w, USER) == {}
        assert await gone(w)


@virtual
async def test_a_process_that_dies_before_aws_is_back_leaves_no_key() -> None:
    async with rotating() as w:
        await put(w)
        w.aws.away = True
        await delete(w)
        await w.kill()
        w.aws.away = False
        await w.start()
        await asyncio.sleep(120)
        assert keys_of(w, USER) == {}
        assert await gone(w)


@virtual
async def test_a_caller_does_not_wait_for_unanswered_deletions() -> None:
    async with rotating() as w:
        made = await put(w)
        w.aws.faults.add(Fault(Kind.HANG, "DeleteAccessKey", times=3))
        async with asyncio.timeout(11):
            assert await delete(w) == (made.current,)
        await asyncio.sleep(300)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_refused_deletion_is_retried() -> None:
    async with rotating() as w:
        made = await put(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", times=2))
        assert await delete(w) == (made.current,)
        await asyncio.sleep(3600)
        assert keys_of(w, USER) == {}
        kept = await put(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", times=1000))
        assert await delete(w) == (kept.current,)
        assert await delete(w, keep_key=True) == ()
        assert await gone(w)
        assert keys_of(w, USER) == {kept.current: "Active"}


@virtual
async def test_a_key_of_a_lost_answer_is_deleted_too() -> None:
    async with rotating() as w:
        await put(w)
        await lose_a_key(w)
        assert await delete(w) == ()
        assert keys_of(w, USER) == {}
        assert not await gone(w)
        await asyncio.sleep(20 * 60)
        assert await gone(w)


@virtual
async def test_a_key_created_after_the_deletion_is_deleted() -> None:
    """A lost request may take effect ten minutes later."""
    async with rotating() as w:
        made = await put(w)
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await rotate_static(w)
        await delete(w)
        await asyncio.sleep(600)
        late = w.iam.handle("CreateAccessKey", {"UserName": USER}, builders.ROOT_KEY)
        assert late.ok
        await asyncio.sleep(600)
        assert keys_of(w, USER) == {}
        assert made.current not in keys_of(w, USER)
        assert await gone(w)


@virtual
async def test_the_name_can_be_used_again_once_the_keys_are_gone() -> None:
    async with rotating() as w:
        await put(w)
        await lose_a_key(w)
        await delete(w)
        again = await put(w)
        assert set(keys_of(w, USER)) == {again.current} == {(await credentials(w)).access_key_id}
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", times=1000))
        await delete(w)
        with pytest.raises(RootRefused):
            await put(w)
        w.aws.faults.clear()
        assert (await put(w)).current != again.current


@virtual
async def test_the_user_is_not_free_until_its_keys_are_gone() -> None:
    """Two roles of one user would take each other's keys for lost ones."""
    async with rotating() as w:
        await put(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", times=1000))
        await delete(w)
        with pytest.raises(StaticUserTaken):
            await put(w, static("other", username=USER))
        w.aws.faults.clear()
        await asyncio.sleep(3600)
        assert await gone(w)
        assert (await put(w, static("other", username=USER))).current in keys_of(w, USER)


@virtual
async def test_another_user_may_have_the_name_once_no_late_key_can_appear() -> None:
    async with rotating() as w:
        await put(w)
        await lose_a_key(w)
        await delete(w)
        w.iam.create_user("else").visible_at = 0.0
        with pytest.raises(Aborted):
            await put(w, static(USER, username="else"))
        await asyncio.sleep(20 * 60)
        assert (await put(w, static(USER, username="else"))).user_name == "else"


@virtual
async def test_keys_of_another_account_are_left_and_reported() -> None:
    async with rotating() as w:
        made = await put(w)
        w.store.rows.clear()
        w.aws.accounts[builders.OTHER_ROOT_KEY] = w.other_iam
        await set_root(w, builders.OTHER_ROOT_KEY)
        assert await delete(w) == ()
        assert await gone(w)
        assert [event.access_key_id for event in w.events.of(KeyLeft)] == [made.current]


@virtual
async def test_a_deleted_user_needs_no_key_deletion() -> None:
    async with rotating() as w:
        await put(w)
        w.iam.forget(USER)
        assert await delete(w) == ()
        assert await gone(w)


@virtual
async def test_a_mount_is_not_removed_before_the_keys_of_a_deleted_static_role() -> None:
    async with rotating() as w:
        await put(w)
        w.aws.away = True
        await delete(w)
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        await asyncio.sleep(120)
        assert "aws" in w.store.mounts
        w.aws.away = False
        await w.until(lambda: "aws" not in w.store.mounts, 300)
        assert keys_of(w, USER) == {}
