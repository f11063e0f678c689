"""Checks the window: what it reads at a start, what it holds, and that what lies outside still rings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from lessor_server.engine.timers import Timers
from tests.support import builders
from tests.support.engine_world import Clocks
from tests.support.memory_store import MemoryStore
from tests.support.virtual_loop import virtual


class Rung:
    """Remembers which ids the timers handed out, and when, in the loop's seconds."""

    def __init__(self) -> None:
        """Begin with none."""
        self.at: dict[str, float] = {}

    def __call__(self, ids: list[str]) -> None:
        """Take note of ids."""
        for lease_id in ids:
            self.at.setdefault(lease_id, asyncio.get_running_loop().time())


async def leased(store: MemoryStore, number: int, seconds: float) -> str:
    """Store an ACTIVE lease that ends in ``seconds``; return its id."""
    intent = builders.intent(number, ttl=timedelta(seconds=seconds))
    claim = await store.begin(intent, timedelta(seconds=60))
    await store.activate(claim, "AKIA")
    return intent.id


@dataclass(frozen=True, slots=True)
class Timing:
    """A store, timers over it, what they hand out, and the group that they run in."""

    store: MemoryStore
    timers: Timers
    rung: Rung
    group: asyncio.TaskGroup

    def start(self) -> None:
        """Run the timers."""
        self.group.create_task(self.timers.run(), name="timers")


@asynccontextmanager
async def timing(limit: int = 50_000) -> AsyncIterator[Timing]:
    """Give all that a test needs; it starts the timers itself."""
    store, rung = MemoryStore(Clocks()), Rung()
    store.mounts["aws"] = builders.mount()
    store.roots["aws"] = builders.stored_root()
    async with asyncio.TaskGroup() as group:
        yield Timing(store, Timers(store, rung, limit), rung, group)
        for task in asyncio.all_tasks():
            if task.get_name() == "timers":
                task.cancel()


@virtual
async def test_a_start_reads_no_more_rows_than_its_limit() -> None:
    """However many leases there are, a start reads only those that end first."""
    async with timing(limit=10) as t:
        for number in range(200):
            await leased(t.store, number, 300 + number)
        t.start()
        await asyncio.sleep(0.5)
        assert t.store.rows_read == 10
        assert len(t.timers) == 10


@virtual
async def test_a_start_reads_nothing_beyond_ten_minutes() -> None:
    """Leases that end far from now cost a start nothing."""
    async with timing() as t:
        for number in range(50):
            await leased(t.store, number, 3600)
        t.start()
        await asyncio.sleep(0.5)
        assert (t.store.rows_read, len(t.timers)) == (0, 0)


@virtual
async def test_a_lease_beyond_the_window_rings_after_a_refill() -> None:
    """A deadline of hours ahead is handed out within a second of its time."""
    async with timing() as t:
        lease_id = await leased(t.store, 0, 7200)
        t.start()
        await asyncio.sleep(7300)
        assert 7200 <= t.rung.at[lease_id] <= 7201.1


@virtual
async def test_all_ring_though_the_window_holds_few() -> None:
    """With ten times more deadlines than the window takes, each still rings in time."""
    async with timing(limit=10) as t:
        ids = [await leased(t.store, number, 60 + 3 * number) for number in range(100)]
        t.start()
        await asyncio.sleep(600)
        late = {key: t.rung.at.get(key, 1e9) - (60 + 3 * number) for number, key in enumerate(ids)}
        assert {key: by for key, by in late.items() if not 0 <= by <= 1.1} == {}


@virtual
async def test_a_deadline_that_moved_rings_at_its_new_time_only() -> None:
    """A renewed lease is not handed out at its old time."""
    async with timing() as t:
        lease_id = await leased(t.store, 0, 60)
        t.start()
        await asyncio.sleep(1)
        t.timers.watch(lease_id, t.store.now() + 120_000_000)
        await asyncio.sleep(200)
        assert 121 <= t.rung.at[lease_id] <= 122.1


@virtual
async def test_what_is_due_already_rings_at_once() -> None:
    """A deadline that has passed waits for no timer."""
    async with timing() as t:
        t.timers.watch("x", t.store.now())
        assert t.rung.at == {"x": 0.0}


@virtual
async def test_a_lease_committed_while_the_window_is_read_is_not_lost() -> None:
    """A deadline that is watched between the read's start and its end rings in time."""
    async with timing() as t:
        t.start()
        await asyncio.sleep(0)
        lease_id = await leased(t.store, 0, 30)
        t.timers.watch(lease_id, t.store.rows[lease_id].lease.due_us)
        await asyncio.sleep(40)
        assert 30 <= t.rung.at[lease_id] <= 31.1


@virtual
async def test_a_failing_store_is_read_again() -> None:
    """Timers outlive a store that fails, and ring what they could not read before."""
    async with timing() as t:
        lease_id = await leased(t.store, 0, 60)
        t.store.fails.add("due_within")
        t.start()
        await asyncio.sleep(30)
        t.store.fails.clear()
        await asyncio.sleep(40)
        assert 60 <= t.rung.at[lease_id] <= 61.1
