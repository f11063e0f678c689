"""Checks in virtual time that the gauges move with issues, revocations, expiries and stuck leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from lessor_server.adapters.metrics import families
from lessor_server.adapters.metrics.families import Family
from lessor_server.adapters.metrics.page import count_leases
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.adapters.metrics.snapshot import Snapshot, Sources
from lessor_server.domain.events import AccountPaused, Stuck
from lessor_server.engine.store_types import LeaseGauges
from tests.support.engine_world import World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

REFRESH = 11.0


async def count(found: LeaseGauges) -> Mapping[Family, dict[tuple[str, ...], float]]:
    """Count without a thread, which virtual time does not have."""
    return count_leases(found.counts, found.mounts)


async def no_warnings() -> dict[str, int]:
    return {}


@asynccontextmanager
async def measured() -> AsyncIterator[tuple[World, Snapshot]]:
    recorder = Recorder(lambda: 0.0)
    async with world(meter=recorder) as w:
        snapshot = Snapshot(recorder, "1", count)
        snapshot.watch(Sources(w.store, w.engine.read_gauges, list, no_warnings, lambda: None))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(snapshot.run())
            yield w, snapshot
            task.cancel()


async def leases(snapshot: Snapshot) -> dict[str, float]:
    """Return the numbers of leases of the mount after the next refresh, without zeros."""
    await asyncio.sleep(REFRESH)
    found = snapshot.read().values[families.LEASES]
    return {state: number for (_, state), number in found.items() if number}


async def value(snapshot: Snapshot, family: Family) -> float:
    await asyncio.sleep(REFRESH)
    return snapshot.read().values[family][()]


@virtual
async def test_the_numbers_move_with_issues_revocations_and_expiries() -> None:
    async with measured() as (w, snapshot):
        assert await leases(snapshot) == {}
        made = [await w.issue(ttl=3600) for _ in range(3)]
        await w.issue(ttl=60)
        assert await leases(snapshot) == {"active": 4}
        await w.revoke(made[0].lease.id)
        assert await leases(snapshot) == {"active": 3}
        assert snapshot.read().values[families.ROLE_LEASES] == {("aws", "app", "active"): 3}
        await asyncio.sleep(60)
        assert await leases(snapshot) == {"active": 2}
        await asyncio.sleep(3600)
        assert await leases(snapshot) == {}


@virtual
async def test_a_refused_revocation_becomes_stuck_and_not_overdue() -> None:
    async with measured() as (w, snapshot):
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser"))
        await w.revoke(made.lease.id)
        assert await value(snapshot, families.LEASES_STUCK) == 0
        await w.events.until(Stuck, seconds=86_400)
        assert await value(snapshot, families.LEASES_STUCK) == 1
        assert await leases(snapshot) == {"revoking": 1}
        w.aws.faults.clear()
        await w.until_gone()
        assert await value(snapshot, families.LEASES_STUCK) == 0


@virtual
async def test_an_outage_makes_leases_overdue_and_not_stuck() -> None:
    async with measured() as (w, snapshot):
        await w.issue(ttl=60)
        w.aws.away = True
        await w.events.until(AccountPaused)
        await asyncio.sleep(7200)
        assert await value(snapshot, families.OLDEST_OVERDUE) > 7200
        assert await value(snapshot, families.LEASES_STUCK) == 0
        w.aws.away = False
        await w.until_gone()
        assert await value(snapshot, families.OLDEST_OVERDUE) == 0


@virtual
async def test_a_hold_is_shown_with_its_reason() -> None:
    async with measured() as (w, snapshot):
        await w.engine.expiry.hold("maintenance of the account", "operator")
        held = snapshot.read().values[families.EXPIRY_HELD]
        assert [reason for (reason,), one in held.items() if one] == ["asked"]
        await w.engine.expiry.resume(lower_clock=False, by="operator")
        assert set(snapshot.read().values[families.EXPIRY_HELD].values()) == {0}
