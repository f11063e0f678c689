"""Checks what becomes of a revocation whose result the store does not take, though it takes claims.

No call to AWS is repeated for it while its claim lasts: the result is written again, with back-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from lessor_server.domain.lease import CREATE_GRACE, State
from lessor_server.domain.lease_id import LeaseId
from lessor_server.engine.engine import Engine
from lessor_server.engine.leases import Outcome
from lessor_server.engine.revocation.claims import CLAIM_SPAN
from lessor_server.engine.revocation.worker import FULL_SCAN_SECONDS, MAX_CONCURRENT
from tests.support.engine_world import World, world
from tests.support.memory_aws import MemoryAws
from tests.support.replicas import replica
from tests.support.virtual_loop import virtual

OUTAGE_SECONDS = 600.0
MAX_BACK_OFF_SECONDS = 30.0
RESULTS = {"finish", "reschedule"}
both_stores = pytest.mark.parametrize("shared", [False, True], ids=["SQLite", "PostgreSQL"])


@dataclass(frozen=True, slots=True)
class Revoker:
    """The one engine that works on the leases of a world, and what it sends."""

    w: World
    engine: Engine
    aws: MemoryAws
    leases: list[str]

    async def revoke_all(self) -> None:
        """Make all leases due, as bulk revocations and expiries do."""
        for lease_id in self.leases:
            await self.w.store.revoke(lease_id)
        self.engine.leases._queue.push_bulk(self.leases)

    def attempts(self) -> list[float]:
        """Return when each attempt on AWS began."""
        return [call.start for call in self.aws.sent if call.action == "DeleteAccessKey"]

    def count(self, *points: str) -> int:
        """Return how often the store was asked for one of these."""
        return sum(name in points for name in self.w.points.passed)

    def is_gone(self) -> bool:
        """Return whether all leases have ended."""
        return set(self.w.states().values()) == {State.GONE}


@asynccontextmanager
async def revoker(*, shared: bool, count: int = 1) -> AsyncIterator[Revoker]:
    """Run one engine on new leases, on a store of its own or as a replica."""
    async with world() as w:
        leases = [(await w.issue(ttl=86_400)).lease.id for _ in range(count)]
        await asyncio.sleep(2 * CREATE_GRACE.total_seconds())
        if not shared:
            yield Revoker(w, w.engine, w.aws, leases)
            return
        await w.stop()
        async with replica(w, "a") as one:
            await asyncio.sleep(5)
            yield Revoker(w, one.engine, one.aws, leases)


@both_stores
@pytest.mark.parametrize("by", ["the store is unavailable", "an unexpected exception"])
@virtual
async def test_results_that_fail_for_long_repeat_no_attempt_within_a_claim(*, shared: bool, by: str) -> None:
    async with revoker(shared=shared) as r:
        failing = r.w.points.broken if by == "an unexpected exception" else r.w.store.fails
        failing |= RESULTS
        began = r.w.now()
        r.w.points.passed.clear()
        await r.revoke_all()
        await asyncio.sleep(OUTAGE_SECONDS)
        attempts = r.attempts()
        assert began <= attempts[0] <= began + 1
        gaps = [later - earlier for earlier, later in pairwise(attempts)]
        longest = CLAIM_SPAN.total_seconds() + FULL_SCAN_SECONDS + 1
        assert gaps
        assert all(CLAIM_SPAN.total_seconds() - MAX_BACK_OFF_SECONDS - 1 <= gap <= longest for gap in gaps)
        per_claim = r.count(*RESULTS) / len(attempts)
        assert 5 <= per_claim <= 15, "written again after 1 s doubling to 30 s, with jitter"
        assert r.count("claim", "claim_due") <= len(attempts) + OUTAGE_SECONDS / FULL_SCAN_SECONDS + 10
        failing.clear()
        await r.w.until(r.is_gone, MAX_BACK_OFF_SECONDS + FULL_SCAN_SECONDS + 10)
        assert bool(r.w.reports.take()) is (by == "an unexpected exception")


@both_stores
@virtual
async def test_a_result_is_written_within_the_back_off_once_the_store_takes_it(*, shared: bool) -> None:
    """The claim would last for two minutes, and AWS is not asked again."""
    async with revoker(shared=shared, count=20) as r:
        r.w.store.fails |= RESULTS
        await r.revoke_all()
        await asyncio.sleep(40)
        r.w.store.fails.clear()
        room_at = r.w.now()
        ended: set[float] = set()
        while not r.is_gone():
            assert r.w.now() <= room_at + MAX_BACK_OFF_SECONDS
            ended.add(list(r.w.states().values()).count(State.GONE))
            await asyncio.sleep(0.1)
        assert len(ended) >= 8, "writes are spread by jitter"
        assert len(r.attempts()) == 20


@both_stores
@virtual
async def test_a_revocation_writes_a_waiting_result_at_once(*, shared: bool) -> None:
    """A caller waits neither for the back-off nor for the claim."""
    async with revoker(shared=shared) as r:
        lease_id = LeaseId.parse(r.leases[0])
        r.w.store.fails |= RESULTS
        for _ in range(10):  # the caller of the first one waits for the attempt, the others for a write
            began = r.w.now()
            answer = await r.engine.leases.revoke(lease_id, sync=True, by="bob")
            assert answer.outcome is Outcome.ACCEPTED
            assert r.w.now() <= began + 1
            await asyncio.sleep(6)
        r.w.store.fails.clear()
        began = r.w.now()
        answer = await r.engine.leases.revoke(lease_id, sync=True, by="bob")
        assert (answer.outcome, len(r.attempts())) == (Outcome.GONE, 1)
        assert r.w.now() <= began + 0.5


@both_stores
@virtual
async def test_waiting_results_are_written_when_claims_succeed_again(*, shared: bool) -> None:
    """The store was away for long enough that the back-off is long by now."""
    async with revoker(shared=shared) as r:
        r.aws.latency = 1.0
        await r.revoke_all()
        await asyncio.sleep(0.5)
        r.w.store.fail_writes = True
        await asyncio.sleep(45)
        r.engine.leases._queue.request_full_scan()
        await asyncio.sleep(20)
        r.w.store.fail_writes = False
        await r.w.until(r.is_gone, 2.0)
        assert len(r.attempts()) == 1


@both_stores
@virtual
async def test_waiting_results_take_no_room_from_other_leases(*, shared: bool) -> None:
    async with revoker(shared=shared, count=MAX_CONCURRENT + 10) as r:
        r.w.store.fails |= RESULTS
        await r.revoke_all()
        await asyncio.sleep(60)
        assert len(r.attempts()) == MAX_CONCURRENT + 10
        assert not r.w.users()


@virtual
async def test_a_store_without_an_answer_for_roots_is_asked_once_a_second_at_most() -> None:
    async with revoker(shared=True) as r:
        r.w.store.fails.add("get_root")
        await r.revoke_all()
        await asyncio.sleep(60)
        assert 10 <= r.count("get_root") <= 70
        assert r.w.store.rows[r.leases[0]].lease.attempts == 0
        r.w.store.fails.clear()
        await r.w.until(r.is_gone, 3.0)


@virtual
async def test_a_lost_answer_to_a_result_leaves_the_lease_as_it_was_written() -> None:
    async with revoker(shared=True) as r:
        r.w.points.lost.add("finish done")
        await r.revoke_all()
        await asyncio.sleep(60)
        assert r.is_gone()
        assert len(r.attempts()) == 1


@virtual
async def test_a_result_is_not_written_over_what_has_changed_since() -> None:
    """A user that was created late is looked for again, though the result that waits says deleted."""
    async with revoker(shared=False) as r:
        (lease_id,) = r.leases
        r.w.store.fails |= RESULTS
        await r.revoke_all()
        await asyncio.sleep(20)
        await r.w.store.reopen(lease_id, r.w.store.now())
        r.w.store.fails.clear()
        await r.w.until(lambda: len(r.attempts()) > 1)
        assert r.w.states()[lease_id] is State.REVOKING


@virtual
async def test_a_drain_does_not_wait_for_results() -> None:
    """The next process voids the claim, and makes another attempt."""
    async with revoker(shared=False) as r:
        r.w.store.fails |= RESULTS
        await r.revoke_all()
        await asyncio.sleep(10)
        began = r.w.now()
        assert await r.engine.work.settle(60) == 0
        assert r.w.now() == began
        await r.w.kill()
        r.w.store.fails.clear()
        await r.w.start()
        await r.w.until(r.is_gone)
