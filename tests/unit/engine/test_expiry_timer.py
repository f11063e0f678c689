"""Checks the window of the expiry timer: what it reads, what it keeps, and that every deadline fires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from lessor_server.engine.revocation.expiry_timer import ExpiryTimer
from tests.support import builders, lease_steps
from tests.support.engine_world import Clocks
from tests.support.memory_store import MemoryStore
from tests.support.virtual_loop import virtual


class Rung:
    """Remembers which ids the timers handed out, and when, in the loop's seconds."""

    def __init__(self) -> None:
        """Begin with none."""
        self.at: dict[str, float] = {}
        self.missed_at: list[float] = []

    def __call__(self, ids: list[str]) -> None:
        """Take note of ids."""
        for lease_id in ids:
            self.at.setdefault(lease_id, asyncio.get_running_loop().time())

    def missed(self) -> None:
        """Take note that some fell due unread."""
        self.missed_at.append(asyncio.get_running_loop().time())


async def leased(store: MemoryStore, number: int, seconds: float) -> str:
    """Store an ACTIVE lease that ends in ``seconds``; return its id."""
    intent = builders.intent(number, ttl=timedelta(seconds=seconds))
    claim = await store.begin(intent, timedelta(seconds=60))
    await lease_steps.activate(store, claim, "AKIA")
    return intent.id


@dataclass(frozen=True, slots=True)
class Timing:
    """A store, timers over it, what they hand out, and the group that they run in."""

    store: MemoryStore
    clocks: Clocks
    timers: ExpiryTimer
    rung: Rung
    group: asyncio.TaskGroup

    def start(self) -> None:
        """Run the timers."""
        self.group.create_task(self.timers.run(), name="timers")


@asynccontextmanager
async def timing(limit: int = 50_000) -> AsyncIterator[Timing]:
    """Give all that a test needs; it starts the timers itself."""
    clocks, rung = Clocks(), Rung()
    store = MemoryStore(clocks)
    store.mounts["aws"] = builders.mount()
    store.roots["aws"] = builders.stored_root()
    async with asyncio.TaskGroup() as group:
        yield Timing(store, clocks, ExpiryTimer(store, rung, rung.missed, limit), rung, group)
        for task in asyncio.all_tasks():
            if task.get_name() == "timers":
                task.cancel()


@virtual
async def test_a_start_reads_no_more_rows_than_its_limit() -> None:
    async with timing(limit=10) as t:
        for number in range(200):
            await leased(t.store, number, 300 + number)
        t.start()
        await asyncio.sleep(0.5)
        assert t.store.rows_read == 10
        assert len(t.timers) == 10


@virtual
async def test_a_start_reads_nothing_beyond_ten_minutes() -> None:
    async with timing() as t:
        for number in range(50):
            await leased(t.store, number, 3600)
        t.start()
        await asyncio.sleep(0.5)
        assert (t.store.rows_read, len(t.timers)) == (0, 0)


@virtual
async def test_a_lease_beyond_the_window_fires_after_a_refill() -> None:
    async with timing() as t:
        lease_id = await leased(t.store, 0, 7200)
        t.start()
        await asyncio.sleep(7300)
        assert 7200 <= t.rung.at[lease_id] <= 7201.1


@virtual
async def test_all_deadlines_fire_with_a_small_window() -> None:
    async with timing(limit=10) as t:
        ids = [await leased(t.store, number, 60 + 3 * number) for number in range(100)]
        t.start()
        await asyncio.sleep(600)
        late = {key: t.rung.at.get(key, 1e9) - (60 + 3 * number) for number, key in enumerate(ids)}
        assert {key: by for key, by in late.items() if not 0 <= by <= 1.1} == {}


@virtual
async def test_more_deadlines_in_one_second_than_the_window_holds_are_a_gap() -> None:
    """It is reported once, a second later."""
    async with timing(limit=10) as t:
        for number in range(25):
            await leased(t.store, number, 60 if number < 20 else 60.2)
        t.start()
        await asyncio.sleep(59)
        assert len(t.rung.missed_at) == 1, "a start does not know what was read before it"
        await asyncio.sleep(3)
        assert [60 <= at <= 61.5 for at in t.rung.missed_at[1:]] == [True]
        assert len(t.rung.at) == 15, "five at the same instant were never read"
        await asyncio.sleep(600)
        assert len(t.rung.missed_at) == 2


@virtual
async def test_deadlines_that_could_not_be_read_are_a_gap() -> None:
    async with timing(limit=10) as t:
        for number in range(100):
            await leased(t.store, number, 5 + number)
        t.start()
        await asyncio.sleep(1)
        t.store.fails.add("list_due_within")
        await asyncio.sleep(40)
        before = len(t.rung.missed_at)
        t.store.fails.clear()
        await asyncio.sleep(2)
        assert len(t.rung.missed_at) == before + 1


@virtual
async def test_after_the_clock_was_lowered_the_window_is_read_again() -> None:
    async with timing() as t:
        t.clocks.wall_ahead = 3600.0
        t.store.restart()
        soon, later = [await leased(t.store, number, seconds) for number, seconds in enumerate((300, 4000))]
        await asyncio.sleep(400)
        t.start()
        await asyncio.sleep(10)
        t.clocks.wall_ahead = 0.0
        await t.store.lower_clock()
        before = len(t.rung.missed_at)
        await asyncio.sleep(31)
        assert len(t.rung.missed_at) == before + 1
        await asyncio.sleep(8000)
        assert 3900 <= t.rung.at[soon] <= 3901.1
        assert 7600 <= t.rung.at[later] <= 7601.1


@virtual
async def test_a_deadline_after_a_suspend_fires_in_time() -> None:
    """The loop's clock does not advance while the machine is suspended."""
    async with timing() as t:
        lease_id = await leased(t.store, 0, 200)
        t.start()
        await asyncio.sleep(10)
        t.clocks.asleep += 20
        await asyncio.sleep(200)
        assert 180 <= t.rung.at[lease_id] <= 181.1


@virtual
async def test_a_moved_deadline_fires_only_at_its_new_time() -> None:
    async with timing() as t:
        lease_id = await leased(t.store, 0, 60)
        t.start()
        await asyncio.sleep(1)
        t.timers.watch(lease_id, t.store.now() + 120_000_000)
        await asyncio.sleep(200)
        assert 121 <= t.rung.at[lease_id] <= 122.1


@virtual
async def test_a_deadline_before_all_others_does_not_wait_for_their_timer() -> None:
    async with timing() as t:
        t.start()
        await asyncio.sleep(0)
        t.timers.watch("late", t.store.now() + 300_000_000)
        await asyncio.sleep(0.1)
        t.timers.watch("soon", t.store.now() + 100_000)
        await asyncio.sleep(400)
        assert 0.2 <= t.rung.at["soon"] <= 1.2
        assert 300 <= t.rung.at["late"] <= 301.1


@virtual
async def test_an_overdue_deadline_fires_immediately() -> None:
    async with timing() as t:
        t.timers.watch("x", t.store.now())
        assert t.rung.at == {"x": 0.0}


@virtual
async def test_a_lease_committed_while_the_window_is_read_is_not_lost() -> None:
    async with timing() as t:
        t.start()
        await asyncio.sleep(0)
        lease_id = await leased(t.store, 0, 30)
        t.timers.watch(lease_id, t.store.rows[lease_id].lease.due_us)
        await asyncio.sleep(40)
        assert 30 <= t.rung.at[lease_id] <= 31.1


@virtual
async def test_a_failing_store_is_read_again() -> None:
    async with timing() as t:
        lease_id = await leased(t.store, 0, 60)
        t.store.fails.add("list_due_within")
        t.start()
        await asyncio.sleep(30)
        t.store.fails.clear()
        await asyncio.sleep(40)
        assert 60 <= t.rung.at[lease_id] <= 61.1
