"""Checks that a reconcile run does not act on ages while the clock is not trusted."""

from __future__ import annotations

import asyncio

from lessor_server.domain.events import OrphanAdopted, ReconcileFailed, Revoked
from lessor_server.domain.lease import State
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual
from tests.unit.engine.test_reconciler import DAY, GRACE, HOUR, appear, sweep


async def start_with(w: World, *, wall_ahead: float = 0.0, aws_ahead: float = 0.0) -> None:
    """Restart with clocks that do not agree with AWS's."""
    await w.kill()
    w.clocks.wall_ahead, w.clocks.aws_ahead = wall_ahead, aws_ahead
    w.events.events.clear()
    w.events.times.clear()
    await w.start()


@virtual
async def test_with_an_untrusted_clock_no_lease_ends_for_a_missing_user() -> None:
    async with world() as w:
        made = await w.issue(ttl=23 * HOUR)
        await asyncio.sleep(GRACE + 60)
        w.iam.forget(made.lease.footprint.user_name)
        await start_with(w, aws_ahead=600)
        await asyncio.sleep(600)
        assert await sweep(w) == []
        assert w.states()[made.lease.id] is State.ACTIVE
        assert w.events.of(ReconcileFailed) == []
        w.clocks.aws_ahead = 0
        await w.events.until(Revoked, seconds=120)


@virtual
async def test_a_clock_that_is_ahead_does_not_end_a_new_lease() -> None:
    async with world() as w:
        made = await w.issue(ttl=5 * HOUR)
        hidden = w.iam.users.pop(made.lease.footprint.user_name.casefold())
        await start_with(w, wall_ahead=HOUR)
        await asyncio.sleep(300)
        w.iam.users[hidden.name.casefold()] = hidden
        await asyncio.sleep(HOUR)
        assert w.states()[made.lease.id] is State.ACTIVE
        assert w.users() == [hidden.name]


@virtual
async def test_with_an_untrusted_clock_no_tombstone_is_dropped() -> None:
    async with world() as w:
        made = await w.issue()
        await w.revoke(made.lease.id)
        await start_with(w, wall_ahead=8 * DAY)
        await asyncio.sleep(2 * HOUR)
        assert made.lease.id in w.store.rows


@virtual
async def test_with_an_untrusted_clock_no_user_is_adopted() -> None:
    async with world() as w:
        await bound(w)
        await start_with(w, aws_ahead=300)
        appear(w)
        await asyncio.sleep(GRACE + 600)
        assert [(one.user_name, one.applied) for one in await sweep(w)] == [("stray", False)]
        assert w.users() == ["stray"]
        w.clocks.aws_ahead = 0
        await w.events.until(OrphanAdopted, seconds=120)
        await w.until_gone(seconds=10)
        assert w.users() == []


@virtual
async def test_lowering_the_clock_during_a_run_adopts_no_new_user() -> None:
    async with world() as w:
        await bound(w)
        await start_with(w, wall_ahead=DAY)
        await asyncio.sleep(60)  # past the run of the start
        appear(w)
        w.aws.faults.add(Fault(Kind.DELAY, "GetUser", nth=1, seconds=5.0))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sweep(w))
            await asyncio.sleep(1.0)  # GetUser is on its way
            w.clocks.wall_ahead = 0
            await w.engine.expiry.resume(lower_clock=True, by="test")
        assert [(one.user_name, one.applied) for one in running.result()] == [("stray", False)]
        assert w.users() == ["stray"]
