"""Checks scheduled rotations of roots across restarts, outages and holds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from lessor_server.domain.events import Rotated, RotationFailed, RotationMissed
from lessor_server.domain.schedule import NEVER
from lessor_server.engine.rotation.rotator import MAX_CONCURRENT
from tests.support import builders
from tests.support.engine_world import BASE_US, World
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_home import ROOT
from tests.support.rotating import (
    keys_of,
    put,
    root_key,
    rotate,
    rotate_static,
    rotating,
    row_of,
    set_root,
    static,
)
from tests.support.virtual_loop import virtual

SECOND = 1_000_000
HOUR = timedelta(hours=1)
NIGHTLY = "0 3 * * *"
DAWN_US = BASE_US - BASE_US % (86_400 * SECOND) + (86_400 + 3 * 3600) * SECOND
"""The first three o'clock after a run begins."""


def seconds_until(w: World, instant_us: int) -> float:
    """Return how long it is until an instant."""
    return (instant_us - w.store.now()) / SECOND


@virtual
async def test_a_period_rotates_again_and_again() -> None:
    """Each time within the last tenth of the period."""
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        began = w.now()
        await asyncio.sleep(4 * 3600)
        times = [began, *w.events.times_of(Rotated)]
        gaps = [after - before for before, after in pairwise(times)]
        assert len(gaps) >= 4
        assert all(3240 <= gap <= 3610 for gap in gaps)
        assert len(set(gaps)) == len(gaps)


@virtual
async def test_mounts_of_one_period_rotate_at_different_times() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await w.engine.mounts.enable(builders.mount("aws2"), "test")
        config = builders.root_config(rotation_period=HOUR)
        await w.engine.mounts.set_root("aws2", "", lambda _: config, "test")
        first, second = await row_of(w), await row_of(w, "aws2/root")
        assert abs(first.next_us - second.next_us) > SECOND


@virtual
async def test_the_next_time_survives_a_restart() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        due = await row_of(w)
        await asyncio.sleep(1800)
        await w.kill()
        await asyncio.sleep(60)
        await w.start()
        await asyncio.sleep(5)
        assert await row_of(w) == due
        await asyncio.sleep(seconds_until(w, due.next_us) + 10)
        assert await root_key(w) != builders.ROOT_KEY


@virtual
async def test_an_overdue_rotation_is_done_at_the_start() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await w.kill()
        await asyncio.sleep(7200)
        await w.start()
        await asyncio.sleep(30)
        assert await root_key(w) != builders.ROOT_KEY


@pytest.mark.parametrize("hours", [0.5, 4])
@virtual
async def test_another_period_moves_the_next_time_durably(hours: float) -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await asyncio.sleep(600)
        await set_root(w, rotation_period=timedelta(hours=hours))
        assert 0.9 * hours * 3600 <= seconds_until(w, (await row_of(w)).next_us) <= hours * 3600
        moved = await row_of(w)
        await w.kill()
        await w.start()
        await asyncio.sleep(5)
        assert await row_of(w) == moved


@virtual
async def test_a_change_of_another_field_keeps_the_next_time() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        before = await row_of(w)
        await asyncio.sleep(600)
        await set_root(w, region="eu-west-1")
        assert await row_of(w) == before


@virtual
async def test_removing_the_period_ends_the_rotations() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await set_root(w, rotation_period=None)
        row = await row_of(w)
        assert (row.schedule, row.next_us, row.due_us) == (NEVER, 0, 0)
        await asyncio.sleep(7200)
        assert await root_key(w) == builders.ROOT_KEY


@virtual
async def test_a_mount_that_is_being_disabled_gets_no_new_key_by_its_schedule() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey"))
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        await asyncio.sleep(2 * 3600)
        assert "CreateAccessKey" not in w.aws.actions(ROOT)
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}


@virtual
async def test_an_explicit_rotation_starts_a_new_period() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await asyncio.sleep(3000)
        await rotate(w)
        assert seconds_until(w, (await row_of(w)).next_us) >= 3240


@virtual
async def test_a_period_set_during_a_rotation_counts() -> None:
    async with rotating() as w:
        w.iam.visible_after = 10.0
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        await set_root(w, rotation_period=HOUR)
        await calling
        assert 3240 <= seconds_until(w, (await row_of(w)).next_us) <= 3600


@virtual
async def test_a_period_set_during_a_rotation_that_fails_counts_too() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey", times=200))
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        await set_root(w, rotation_period=HOUR)
        await asyncio.wait([calling])
        assert calling.exception() is not None
        await asyncio.sleep(1)
        assert 3240 - 70 <= seconds_until(w, (await row_of(w)).next_us) <= 3600


@virtual
async def test_a_schedule_that_was_not_stored_is_stored_at_the_start() -> None:
    """A process may die between the root's commit and the schedule's."""
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        del w.store.rotations["aws/root"]
        await w.kill()
        await w.start()
        await asyncio.sleep(5)
        assert 3240 - 5 <= seconds_until(w, (await row_of(w)).next_us) <= 3600


# --- cron and its window ----------------------------------------------------------------------------------


@virtual
async def test_a_cron_expression_rotates_at_its_times() -> None:
    async with rotating() as w:
        await set_root(w, rotation_schedule=NIGHTLY)
        assert (await row_of(w)).next_us == DAWN_US
        await asyncio.sleep(seconds_until(w, DAWN_US) - 5)
        assert w.events.of(Rotated) == []
        await asyncio.sleep(15)
        assert len(w.events.of(Rotated)) == 1
        assert (await row_of(w)).next_us == DAWN_US + 86_400 * SECOND


@virtual
async def test_a_rotation_that_misses_its_window_waits_for_the_next_time() -> None:
    async with rotating() as w:
        await set_root(w, rotation_schedule=NIGHTLY, rotation_window=HOUR)
        await w.kill()
        await asyncio.sleep(seconds_until(w, DAWN_US) + 3700)
        await w.start()
        await asyncio.sleep(30)
        assert await root_key(w) == builders.ROOT_KEY
        assert w.events.of(RotationMissed) == [RotationMissed("aws/root", DAWN_US + 86_400 * SECOND)]
        await asyncio.sleep(86_400)
        assert await root_key(w) != builders.ROOT_KEY


@virtual
async def test_within_its_window_a_rotation_may_begin_late() -> None:
    async with rotating() as w:
        await set_root(w, rotation_schedule=NIGHTLY, rotation_window=HOUR)
        await w.kill()
        await asyncio.sleep(seconds_until(w, DAWN_US) + 3000)
        await w.start()
        await asyncio.sleep(30)
        assert await root_key(w) != builders.ROOT_KEY
        assert w.events.of(RotationMissed) == []


@virtual
async def test_a_rotation_that_is_refused_during_its_whole_window_is_missed() -> None:
    async with rotating() as w:
        await set_root(w, rotation_schedule=NIGHTLY, rotation_window=HOUR)
        w.aws.faults.add(Fault(Kind.REFUSE, "ListAccessKeys"))
        await asyncio.sleep(seconds_until(w, DAWN_US) + 2 * 3600)
        failures = w.events.of(RotationFailed)
        assert len(failures) >= 4
        assert [one.attempts for one in failures] == list(range(1, len(failures) + 1))
        assert len(w.events.of(RotationMissed)) == 1
        assert (await row_of(w)).attempts == 0


# --- when it must wait --------------------------------------------------------------------------------------


@virtual
async def test_a_refused_rotation_backs_off_and_its_attempts_are_durable() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        w.aws.faults.add(Fault(Kind.REFUSE, "ListAccessKeys"))
        await asyncio.sleep(3600 + 2 * 3600)
        times = w.events.times_of(RotationFailed)
        assert max(after - before for before, after in pairwise(times)) <= 905
        attempts = (await row_of(w)).attempts
        assert attempts == len(times) >= 9
        await w.kill()
        await w.start()
        await w.events.until(RotationFailed, count=len(times) + 1)
        assert (await row_of(w)).attempts == attempts + 1
        w.aws.faults.clear()
        await asyncio.sleep(1000)
        row = await row_of(w)
        assert (row.attempts, row.last_error) == (0, "")
        assert keys_of(w) == {await root_key(w): "Active"}


@virtual
async def test_an_outage_counts_no_attempt() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        w.aws.away = True
        await asyncio.sleep(3 * 3600)
        assert (await row_of(w)).attempts == 0
        assert w.events.of(RotationFailed)
        w.aws.away = False
        await asyncio.sleep(60)
        assert await root_key(w) != builders.ROOT_KEY


@virtual
async def test_a_scheduled_rotation_waits_while_expiries_are_held() -> None:
    """The clock may be wrong. An explicit rotation is still possible."""
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        await w.engine.expiry.hold("ASKED")
        await asyncio.sleep(4000)
        assert await root_key(w) == builders.ROOT_KEY
        new = await rotate(w)
        await set_root(w, rotation_period=2 * HOUR)
        assert await root_key(w) == new
        await w.engine.expiry.resume(lower_clock=False)
        await asyncio.sleep(70)
        assert set(keys_of(w)) == {new}


@virtual
async def test_explicit_rotations_do_not_delay_scheduled_ones() -> None:
    async with rotating() as w:
        users = [f"user-{number}" for number in range(MAX_CONCURRENT)]
        for user in users:
            w.iam.create_user(user).visible_at = 0.0
            await put(w, static(user))
        await set_root(w, rotation_period=HOUR)
        await asyncio.sleep(seconds_until(w, (await row_of(w)).next_us) - 10)
        w.iam.visible_after = 50.0
        slow = [asyncio.get_running_loop().create_task(rotate_static(w, user)) for user in users]
        await asyncio.sleep(12)
        assert not any(task.done() for task in slow)
        assert "CreateAccessKey" in w.aws.actions(ROOT)
        await asyncio.wait(slow)


@virtual
async def test_at_most_eight_scheduled_rotations_run_at_the_same_time() -> None:
    async with rotating() as w:
        users = [f"user-{number}" for number in range(MAX_CONCURRENT + 1)]
        for user in users:
            w.iam.create_user(user).visible_at = 0.0
            await put(w, static(user, period=3600.0))
        w.iam.visible_after = 50.0
        w.aws.sent.clear()
        await asyncio.sleep(3620)
        assert w.aws.actions().count("CreateAccessKey") == MAX_CONCURRENT
        await asyncio.sleep(60)
        assert w.aws.actions().count("CreateAccessKey") == MAX_CONCURRENT + 1


@virtual
async def test_a_store_error_delays_rotations_only_until_it_is_over() -> None:
    async with rotating() as w:
        await set_root(w, rotation_period=HOUR)
        w.store.fail_writes = True
        await asyncio.sleep(3700)
        w.store.fail_writes = False
        await asyncio.sleep(30)
        assert await root_key(w) != builders.ROOT_KEY
