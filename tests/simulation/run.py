"""One run: first with faults and callers, then without, until everything has ended."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from lessor.v1 import lease_pb2
from lessor_server.domain.lease import LIVE
from tests.simulation.expectations import SETTLE_SECONDS, Breach
from tests.simulation.journal import ALL, Journal, suffix
from tests.simulation.options import Options
from tests.simulation.points import Points
from tests.simulation.process import task_factory
from tests.simulation.rotation_invariants import rests
from tests.simulation.stopping import StoppingLoop
from tests.simulation.wire import LATEST_ARRIVAL
from tests.simulation.workload import Workload, furnish
from tests.simulation.world import World
from tests.support.iam_user import User

CALM_SECONDS = 5 * 3600.0
"""How long the end may take: an hourly reconcile run, checks for a user, and a clock an hour ahead."""
POLL_SECONDS = 20.0
DOZE_SECONDS = 600.0
"""How long all processes are stopped at most while they have nothing to do."""
AWAKE_POLLS = 1
"""How many polls there are between two such stops: what is overdue is done meanwhile."""
AWAKE_SECONDS = 20.0
"""So long before anything happens no process is stopped, so that it meets processes at work."""
IDLE_EACH = 5
"""One in so many seeds waits with idle processes, not with stopped ones."""
Play = Callable[[World], Coroutine[Any, Any, None]]
WEEK = 8 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run."""

    options: Options
    breaches: tuple[Breach, ...]
    journal: Journal
    effects: int
    seconds: float
    """Virtual ones."""
    story: str = ""

    @property
    def digest(self) -> str:
        """Return a digest of the journal, which shows that a seed replays."""
        return self.journal.digest()

    @property
    def broken(self) -> str:
        """Return the name of the first invariant that broke, or an empty text."""
        return self.breaches[0].invariant if self.breaches else ""


def run(options: Options) -> Result:
    """Do one run."""
    return in_world(options, _play)


def in_world(options: Options, play: Play, points: Points | None = None) -> Result:
    """Run ``play(world)`` in virtual time and return the result."""
    if not gc.isenabled():
        gc.collect()  # what the run before has left, while that is few objects
    loop = StoppingLoop(options.seed)
    world = World(options, loop, points or Points())

    async def main() -> None:
        loop.set_task_factory(task_factory)
        furnish(world)
        world.replicas.begin()
        await play(world)
        world.replicas.end()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    breaches = tuple(world.breaches)
    story = world.journal.story(breaches[0].subject) if breaches else ""
    return Result(options, breaches, world.journal, world.effects, world.now(), story)


async def _play(world: World) -> None:
    workload = Workload(world)
    world.faults.plan()
    workload.plan()
    until, polls = world.now() + world.options.span, 0
    while world.now() < until and not world.breaches:
        left = max(until - world.now(), 0.01)
        idle = _idle_seconds(world) if polls >= AWAKE_POLLS and world.replicas.several else 0.0
        polls = await _poll(world, min(idle, left), polls, left)
    await calm(world, workload)


async def calm(world: World, workload: Workload) -> None:
    """End all faults, and wait until everything has ended."""
    world.faults.end()
    world.journal.note("calm", ALL)
    until, polls = world.now() + CALM_SECONDS, 0
    while not world.breaches and world.now() < until:
        rests = _rests(world)
        if rests and not any(_is_to_go(world, user) for user in world.expectations.users()):
            break
        idle = 0.0
        if polls >= AWAKE_POLLS:
            idle = DOZE_SECONDS if rests else _idle_seconds(world)
        polls = await _poll(world, idle, polls)
        await _operate(world, workload)
    if not world.breaches:
        world.judge_end()
    if not world.breaches:
        await _count(world, workload)
    if world.options.week and not world.breaches:
        await _bury(world, workload)


async def _poll(world: World, idle: float, polls: int, most: float = POLL_SECONDS) -> int:
    """Wait a little, or stop all processes for the ``idle`` seconds; return the polls since the last stop."""
    if idle <= POLL_SECONDS or world.options.seed % IDLE_EACH == 0:
        await asyncio.sleep(min(POLL_SECONDS, most))
        return polls + 1
    seconds = min(idle, DOZE_SECONDS)
    world.replicas.doze(seconds)
    await asyncio.sleep(seconds)
    return 0


async def _operate(world: World, workload: Workload) -> None:
    """Do what an operator does who sees the alarms."""
    engines = [process.engine for process in world.replicas.serving if process.engine is not None]
    if not engines:
        return
    if any(engine.expiry.held for engine in engines):
        await workload.client.resume(lower_clock=True)
    strangers = [
        lease_id
        for lease_id, row in world.store.rows.items()
        if row.live
        and row.lease.attempts
        and (row.lease.mount not in world.store.roots or _elsewhere(world, lease_id))
    ]
    if strangers:
        await workload.client.abandon(f"{strangers[0].split('/')[0]}/")


def _elsewhere(world: World, lease_id: str) -> bool:
    """Return whether a lease's mount now has the root of another account."""
    lease = world.store.rows[lease_id].lease
    account = world.store.roots[lease.mount].account
    return bool(account) and account != lease.footprint.account


def _rests(world: World) -> bool:
    """Return whether nothing is in progress or pending but what a reconcile run must find."""
    if world.pending or world._own or world.store.open or not world.replicas.complete:
        return False
    if any(row.lease.state in LIVE for row in world.store.rows.values()):
        return False
    return all(rests(row) for row in world.store.rotations.values())


def _idle_seconds(world: World) -> float:
    """Return for how long no process has anything to do for a lease, a caller or a request."""
    if world.store.open or not all(rests(row) for row in world.store.rotations.values()):
        return 0.0
    live = [row for row in world.store.rows.values() if row.live]
    if any(row.claimed_by for row in live):
        return 0.0
    due_us = min((row.lease.due_us for row in live), default=math.inf)
    next_in = min((due_us - world.store.now()) / 1e6, world.idle_seconds) - AWAKE_SECONDS
    return next_in if world.replicas.several else next_in - SETTLE_SECONDS


def _is_to_go(world: World, user: User) -> bool:
    """Return whether a user has no lease that was abandoned."""
    record = world.expectations.records.get(suffix(user.name))
    return record is None or world.store.rows[record.lease_id].lease.state.value != "ABANDONED"


async def _count(world: World, workload: Workload) -> None:
    """8: the counts of the server are correct."""
    counted = 0
    for mount in ("aws/", "lab/"):
        reply = await workload.client.call("CountLeases", lease_pb2.CountLeasesRequest(prefix=mount))
        counted += sum(one.count for message in reply.messages for one in message.counts)
    if counted != len(world.store.rows):
        world.broken("counts_are_the_stores", "", f"{counted} leases were counted of {len(world.store.rows)}")


async def _bury(world: World, workload: Workload) -> None:
    """1: after a week a complete listing drops the tombstones, and nothing else."""
    world.sleep(WEEK)
    await asyncio.sleep(LATEST_ARRIVAL)
    await _operate(world, workload)
    for mount in sorted(world.store.mounts):
        await workload.client.call("Reconcile", lease_pb2.ReconcileRequest(mount=mount, apply=True))
    accounts = {root.account for root in world.store.roots.values()}
    rows = [row for row in world.store.rows.values() if not row.lease.is_session]
    left = [row for row in rows if row.lease.footprint.account in accounts]
    for row in left:
        if row.lease.state.value == "GONE":
            world.broken("tombstones_go_after_a_week", suffix(row.lease.id), "its tombstone is still there")
            return
