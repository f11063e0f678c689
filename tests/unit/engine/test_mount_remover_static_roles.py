"""Checks what happens to the keys of static roles when their mount is disabled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from lessor_server.domain.errors.base import AwsUnavailable, NotFound, RootChanged
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.events import Deleted, KeyLeft, KeyRetired, MountRemoved
from lessor_server.domain.mount import MountState
from lessor_server.domain.rotation import Phase, static_subject
from lessor_server.engine.revocation.expiry_hold import STORE_ROLLED_BACK
from tests.support.engine_world import World
from tests.support.iam_faults import Fault, Kind
from tests.support.rotating import USER, keys_of, put, rotate_static, rotating, row_of, static
from tests.support.virtual_loop import virtual

SUBJECT = static_subject("aws", USER)


async def disable(w: World, *, force: bool = False) -> None:
    """Disable the mount as an operator does."""
    await w.engine.mount_remover.disable("aws", force=force, by="bob")


async def gone(w: World, seconds: float = 60.0) -> None:
    """Wait until the mount is removed."""
    await w.until(lambda: "aws" not in w.store.mounts, seconds)
    assert w.store.rotations == {}


@virtual
async def test_the_keys_of_static_roles_are_deleted_before_their_mount_is_removed() -> None:
    """Keys of others and the users stay."""
    async with rotating() as w:
        w.iam.create_user("reports").visible_at = 0.0
        theirs = w.iam.create_access_key("reports").id
        await put(w, static("reports"))
        await put(w)
        await rotate_static(w)
        await disable(w)
        await gone(w)
        assert keys_of(w, USER) == {}
        assert keys_of(w, "reports") == {theirs: "Active"}
        assert w.events.of(KeyLeft) == []
        assert {event.by for event in w.events.of(Deleted)} == {"bob"}
        assert max(w.events.times_of(KeyRetired)) <= min(w.events.times_of(MountRemoved))


@virtual
async def test_more_static_roles_than_the_concurrency_limit_are_all_deleted() -> None:
    async with rotating() as w:
        names = [f"user-{index:02}" for index in range(19)]
        for name in names:
            w.iam.create_user(name).visible_at = 0.0
            await put(w, static(name))
        await disable(w)
        await gone(w, 120)
        assert [name for name in names if keys_of(w, name)] == []


@virtual
async def test_during_an_outage_the_mount_waits_for_the_keys_of_its_static_roles() -> None:
    async with rotating() as w:
        await put(w)
        w.aws.away = True
        await disable(w)
        await asyncio.sleep(600)
        assert w.store.mounts["aws"].state is MountState.DISABLING
        assert (await row_of(w, SUBJECT)).ending
        w.aws.away = False
        await gone(w, 600)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_key_that_aws_refuses_to_delete_keeps_its_mount() -> None:
    """Only the mount's rows know the key."""
    async with rotating() as w:
        made = await put(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey", user=USER))
        await disable(w)
        await asyncio.sleep(3 * 3600)
        row = await row_of(w, SUBJECT)
        assert (row.current, row.attempts >= 6, w.events.of(KeyLeft)) == (made.current, True, [])
        w.aws.faults.clear()
        await gone(w, 3600)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_death_at_any_write_loses_no_static_key() -> None:
    index, writes = 0, 1
    while index < writes:
        async with rotating() as w:
            await put(w)
            await rotate_static(w)
            w.points.passed.clear()
            w.points.reached.clear()
            w.points.die_at = index
            asking = asyncio.get_running_loop().create_task(disable(w))
            removed = asyncio.get_running_loop().create_task(w.events.until(MountRemoved, seconds=60))
            died = asyncio.get_running_loop().create_task(w.points.reached.wait())
            await asyncio.wait((removed, died), return_when=asyncio.FIRST_COMPLETED)
            writes = max(writes, len(w.points.passed) + 1)
            for task in (removed, died, asking):
                task.cancel()
            if w.points.reached.is_set():
                await w.kill()
                await w.start()
                with suppress(NotFound):  # all was done but the answer
                    await disable(w)
                await gone(w)
            assert keys_of(w, USER) == {}, f"died at write {index}"
        index += 1
    assert writes > 8


@virtual
async def test_a_static_role_claimed_by_another_process_is_tried_once_a_second() -> None:
    """A claim lasts three minutes."""
    async with rotating() as w:
        await put(w)
        assert await w.store.claim_rotation(SUBJECT)
        w.points.passed.clear()
        await disable(w)
        await asyncio.sleep(60)
        assert 50 <= w.points.passed.count("claim_rotation done") <= 70
        await gone(w, 300)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_key_whose_creation_was_interrupted_is_deleted_before_its_mount() -> None:
    async with rotating() as w:
        await put(w)
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await rotate_static(w)
        assert (await row_of(w, SUBJECT)).phase is Phase.INTENDED
        await disable(w)
        await asyncio.sleep(60)
        assert keys_of(w, USER) == {}
        assert "aws" in w.store.mounts
        await gone(w, 20 * 60)
        assert keys_of(w, USER) == {}


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
@virtual
async def test_a_static_role_that_is_put_while_its_mount_is_disabled_leaves_no_key(after: float) -> None:
    async with rotating() as w:
        putting = asyncio.get_running_loop().create_task(put(w))
        await asyncio.sleep(after)
        await disable(w)
        await asyncio.wait((putting,))
        assert isinstance(putting.exception(), MountDisabling | NotFound | RootChanged | None)
        await gone(w, 20 * 60)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_forced_disable_leaves_the_keys_of_static_roles_and_reports_each() -> None:
    async with rotating() as w:
        first = await put(w)
        second = await rotate_static(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "*", code="InvalidClientTokenId"))
        await disable(w, force=True)
        await gone(w)
        assert {event.access_key_id for event in w.events.of(KeyLeft)} == {first.current, second}
        assert {(event.subject, event.user_name) for event in w.events.of(KeyLeft)} == {(SUBJECT, USER)}
        assert max(w.events.times_of(KeyLeft)) <= min(w.events.times_of(MountRemoved))
        assert set(keys_of(w, USER)) == {first.current, second}


@virtual
async def test_a_forced_disable_reports_a_key_that_may_have_been_created() -> None:
    async with rotating() as w:
        made = await put(w)
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await rotate_static(w)
        await disable(w, force=True)
        await gone(w)
        assert {event.access_key_id for event in w.events.of(KeyLeft)} == {made.current, ""}


@virtual
async def test_a_disable_from_a_restored_backup_waits_until_expiry_is_resumed() -> None:
    """The backup does not know the newer keys and would take them for lost ones."""
    async with rotating() as w:
        await put(w)
        await w.engine.expiry.hold(STORE_ROLLED_BACK)
        w.store.mounts["aws"] = replace(w.store.mounts["aws"], state=MountState.DISABLING)
        await asyncio.sleep(120)
        assert len(keys_of(w, USER)) == 1
        await disable(w)
        await gone(w)
        assert keys_of(w, USER) == {}
