"""Checks how a disabled mount is removed after its last lease."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from lessor_server.domain.errors.base import LeaseTaken, NotFound
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.events import MountRemoved
from lessor_server.domain.lease import State
from lessor_server.domain.mount import MountState
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

SECOND_KEY = "SECOND_ROOT_KEY_OF_THE_TESTS"


async def disable(w: World, *, force: bool = False) -> int:
    """Disable the mount and return how many leases it still had."""
    return (await w.engine.mount_remover.disable("aws", force=force, by="bob")).leases_left


async def gone(w: World) -> None:
    """Wait until the mount is removed."""
    await w.events.until(MountRemoved, seconds=60)
    assert (w.store.mounts, w.store.roots, w.store.roles) == ({}, {}, {})


@virtual
async def test_a_mount_is_removed_with_its_last_lease() -> None:
    """Its tombstones stay."""
    async with world() as w:
        for _ in range(3):
            await w.issue()
        assert await disable(w) == 3
        await gone(w)
        assert w.users() == []
        assert set(w.states().values()) == {State.GONE}
        with pytest.raises(NotFound):
            await w.issue()


@virtual
async def test_a_mount_without_leases_is_removed_within_two_seconds() -> None:
    async with world() as w:
        assert await disable(w) == 0
        await w.events.until(MountRemoved, seconds=2)


@virtual
async def test_a_disabling_mount_issues_nothing_and_keeps_its_root_until_no_lease_is_left() -> None:
    async with world() as w:
        await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser"))
        await disable(w)
        with pytest.raises(MountDisabling):
            await w.issue()
        await asyncio.sleep(3600)
        assert w.store.mounts["aws"].state is MountState.DISABLING
        assert "aws" in w.store.roots
        w.aws.faults.clear()
        await w.until_gone(seconds=1000)
        await gone(w)
        assert w.users() == []


@pytest.mark.parametrize("after", [0.01, 0.04, 0.06, 0.09])
@virtual
async def test_an_issue_in_progress_is_aborted_and_undone(after: float) -> None:
    async with world() as w:
        await bound(w)
        caller = asyncio.get_running_loop().create_task(w.attempt())
        await asyncio.sleep(after)
        await disable(w)
        assert isinstance(await caller, LeaseTaken)
        await w.until_gone()
        await gone(w)
        assert w.users() == []


@virtual
async def test_an_accepted_disable_survives_a_kill() -> None:
    async with world() as w:
        for _ in range(5):
            await w.issue()
        await disable(w)
        await w.kill()
        await w.start()
        await gone(w)
        assert w.users() == []


@virtual
async def test_disabling_is_one_commit() -> None:
    async with world() as w:
        for _ in range(5):
            await w.issue()
        w.points.passed.clear()
        w.points.reached.clear()
        w.points.die_at = 1  # the end of the first write, before its caller gets the result
        asking = asyncio.get_running_loop().create_task(disable(w))
        await w.points.reached.wait()
        assert w.points.passed == ["disable", "disable done"]
        await w.kill()
        assert asking.cancelled()
        await w.start()
        await gone(w)
        assert w.users() == []


@virtual
async def test_a_forced_disable_can_be_repeated_after_a_death_at_any_write() -> None:
    for index in range(6):
        async with world() as w:
            made = [(await w.issue()).lease.id for _ in range(3)]
            w.aws.faults.add(Fault(Kind.REFUSE, "*", code="InvalidClientTokenId"))
            w.points.passed.clear()
            w.points.reached.clear()
            w.points.die_at = index
            asyncio.get_running_loop().create_task(disable(w, force=True))
            await w.points.reached.wait()
            await w.kill()
            await w.start()
            with suppress(NotFound):  # all was done but the answer
                await disable(w, force=True)
            await gone(w)
            assert w.states() == dict.fromkeys(made, State.ABANDONED)


@virtual
async def test_a_mount_with_an_invalid_root_is_removed_by_force() -> None:
    """Its leases are abandoned, and their rows are kept."""
    async with world() as w:
        made = [(await w.issue()).lease.id for _ in range(3)]
        w.aws.faults.add(Fault(Kind.REFUSE, "*", code="InvalidClientTokenId"))
        await w.revoke(made[0])
        await disable(w)
        await asyncio.sleep(600)
        assert w.store.mounts["aws"].state is MountState.DISABLING
        await disable(w, force=True)
        await gone(w)
        assert w.states() == dict.fromkeys(made, State.ABANDONED)
        assert len(w.users()) == 3


@virtual
async def test_disabling_twice_has_the_effect_of_once() -> None:
    async with world() as w:
        await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1))
        await disable(w)
        await disable(w)
        await gone(w)
        with pytest.raises(NotFound):
            await disable(w)


@virtual
async def test_another_mount_is_not_touched() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("aws2"), "test")
        await w.set_root("aws2", builders.OTHER_ROOT_KEY)
        await w.put_role(builders.role(mount_name="aws2"))
        other = await w.issue(mount="aws2")
        await w.issue()
        await disable(w)
        await w.events.until(MountRemoved, seconds=60)
        assert list(w.store.mounts) == list(w.store.roots) == ["aws2"]
        assert w.states()[other.lease.id] is State.ACTIVE
        await w.issue(mount="aws2")


@pytest.mark.parametrize("used", [True, False])
@virtual
async def test_a_mount_that_is_enabled_again_uses_its_new_root(used: bool) -> None:
    async with world() as w:
        w.aws.accounts[SECOND_KEY] = w.iam
        if used:
            await bound(w)
        await disable(w)
        await gone(w)
        await w.engine.mounts.enable(builders.mount(), "test")
        await w.set_root("aws", SECOND_KEY)
        assert (await w.engine.mounts.get_root("aws")).config.access_key == SECOND_KEY


@virtual
async def test_a_store_error_delays_the_removal() -> None:
    async with world() as w:
        await w.issue()
        await disable(w)
        w.store.fail_writes = True
        await asyncio.sleep(300)
        assert "aws" in w.store.mounts
        w.store.fail_writes = False
        await gone(w)


@virtual
async def test_while_no_mount_is_disabled_nothing_is_written() -> None:
    async with world() as w:
        await asyncio.sleep(600.0)
        assert "remove_disabled" not in w.points.passed
        await disable(w)
        await gone(w)
        assert "remove_disabled" in w.points.passed
