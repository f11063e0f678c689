"""Checks the events of leases that watchers get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lessor_server.domain.errors.base import FellBehind
from lessor_server.domain.events import Renewed, StoreFailed
from lessor_server.domain.lease import STUCK_AFTER
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.engine.streams.lease_events import QUEUE, LeaseEvent, LeaseEventBroker, LeaseEventKind
from tests.support import builders
from tests.support.engine_world import BASE_US, BOUND_SECONDS, World, bound, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as Harm
from tests.support.listener import OVERLAP, TTL, listening
from tests.support.virtual_loop import virtual

APP = IdRange("aws/creds/app/", "aws/creds/app0")


class Reader:
    """Reads a watch in the background; tests check what it has received."""

    def __init__(self) -> None:
        """Begin with no events."""
        self.heard: list[LeaseEvent] = []

    @property
    def kinds(self) -> list[LeaseEventKind]:
        """Return the received kinds of events, in order."""
        return [one.kind for one in self.heard]

    async def read(self, lease_events: LeaseEventBroker, ids: IdRange) -> None:
        """Read until the watch ends."""
        with lease_events.watch(ids) as happenings:
            async for one in happenings:
                self.heard.append(one)


@asynccontextmanager
async def watching(w: World, ids: IdRange = APP) -> AsyncIterator[Reader]:
    """Watch for the length of the block."""
    reader = Reader()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reader.read(w.engine.lease_events, ids))
        await asyncio.sleep(0.01)
        try:
            yield reader
        finally:
            await asyncio.sleep(0.01)
            task.cancel()


@virtual
async def test_a_watcher_gets_all_events_of_a_lease_in_order() -> None:
    async with world() as w, watching(w) as reader:
        made = await w.issue(ttl=60)
        issued_at = w.now()
        await asyncio.sleep(50)
        await w.renew(made.lease.id, 60)
        await asyncio.sleep(60 + BOUND_SECONDS)
        assert reader.kinds == [
            LeaseEventKind.ISSUED,
            LeaseEventKind.RENEWED,
            LeaseEventKind.EXPIRING,
            LeaseEventKind.REVOKED,
        ]
        assert {one.lease_id for one in reader.heard} == {made.lease.id}
        issued, renewed, expiring, revoked = ((one.at_us - BASE_US) / 1e6 for one in reader.heard)
        assert issued == pytest.approx(issued_at, abs=0.01)
        assert renewed == pytest.approx(issued_at + 50, abs=0.01)
        assert renewed + 60 <= expiring < revoked < renewed + 60 + BOUND_SECONDS
        assert not any(one.error for one in reader.heard)


@virtual
async def test_an_explicit_revocation_has_no_expiring_event() -> None:
    async with world() as w, watching(w) as reader:
        made = await w.issue()
        await w.revoke(made.lease.id)
        await asyncio.sleep(10)
        assert reader.kinds == [LeaseEventKind.ISSUED, LeaseEventKind.REVOKED]


@virtual
async def test_each_failed_attempt_is_an_event_with_its_reason() -> None:
    """The sixth is STUCK too. EXPIRING is sent once."""
    async with world() as w, watching(w) as reader:
        fault = Fault(Harm.REFUSE, "DeleteAccessKey", times=STUCK_AFTER, code="ServiceFailure")
        w.aws.faults.add(fault)
        await w.issue(ttl=5)
        await w.until_gone()
        await asyncio.sleep(1)
        failed = [one for one in reader.heard if one.kind in (LeaseEventKind.FAILED, LeaseEventKind.STUCK)]
        assert [one.kind for one in failed] == [LeaseEventKind.FAILED] * STUCK_AFTER + [LeaseEventKind.STUCK]
        assert {one.error for one in failed} == {"AWS DeleteAccessKey: ServiceFailure"}
        assert reader.kinds[:2] == [LeaseEventKind.ISSUED, LeaseEventKind.EXPIRING]
        assert reader.kinds.count(LeaseEventKind.EXPIRING) == 1
        assert reader.kinds[-1] is LeaseEventKind.REVOKED


@virtual
async def test_only_events_of_the_id_range_are_sent() -> None:
    async with world() as w:
        await w.put_role(builders.role(name="app2"))
        async with watching(w) as mine, watching(w, EVERYTHING) as everybody:
            await w.issue(role="app2")
            mine_id = (await w.issue()).lease.id
        assert [one.lease_id for one in mine.heard] == [mine_id]
        assert len(everybody.heard) == 2
        one = IdRange(mine_id, f"{mine_id}0")
        async with watching(w, one) as single:
            await w.issue()
            await w.revoke(mine_id)
        assert [answer.lease_id for answer in single.heard] == [mine_id]


@virtual
async def test_a_closed_watch_is_dropped_from_memory() -> None:
    async with world() as w:
        async with watching(w), watching(w, EVERYTHING):
            assert len(w.engine.lease_events) == 2
        assert len(w.engine.lease_events) == 0


@virtual
async def test_events_before_the_first_read_are_kept() -> None:
    lease_events = LeaseEventBroker(lambda: 7)
    with lease_events.watch(APP) as happenings:
        lease_events(Renewed("aws/creds/app/x", 1, "bob"))
        assert (await anext(happenings)).kind is LeaseEventKind.RENEWED


@virtual
async def test_replaced_credentials_of_a_stream_are_expiring_and_then_revoked() -> None:
    async with world() as w, watching(w) as reader, listening(w) as listener:
        await listener.until(2, TTL)
        old = listener.got[0].lease.id
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        answer = [one.kind for one in reader.heard if one.lease_id == old]
        assert answer == [LeaseEventKind.ISSUED, LeaseEventKind.EXPIRING, LeaseEventKind.REVOKED]
        assert (await w.lease(old)).last_renewal_us == 0


@virtual
async def test_a_slow_watcher_is_ended_and_delays_no_other() -> None:
    lease_events, quick = LeaseEventBroker(lambda: 7), Reader()
    event = Renewed("aws/creds/app/x", 1, "bob")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(quick.read(lease_events, APP))
        await asyncio.sleep(0.01)
        with lease_events.watch(APP) as slow:
            for number in range(QUEUE + 2):
                lease_events(event)
                if not number:
                    assert (await anext(slow)).kind is LeaseEventKind.RENEWED
                await asyncio.sleep(0.001)
            assert len(lease_events) == 1
            with pytest.raises(FellBehind, match="4096"):
                await anext(slow)
        assert len(lease_events) == 1
        await asyncio.sleep(0.01)
        assert len(quick.heard) == QUEUE + 2
        task.cancel()
    assert len(lease_events) == 0


@virtual
async def test_a_full_queue_is_still_read() -> None:
    lease_events = LeaseEventBroker(lambda: 7)
    with lease_events.watch(EVERYTHING) as happenings:
        for number in range(QUEUE):
            lease_events(Renewed(f"aws/creds/app/{number}", 1, "bob"))
        answer = [await anext(happenings) for _ in range(QUEUE)]
    assert [one.lease_id for one in answer] == [f"aws/creds/app/{number}" for number in range(QUEUE)]


@virtual
async def test_events_of_other_subjects_are_not_sent() -> None:
    async with world() as w, watching(w, EVERYTHING) as reader:
        w.engine.lease_events(StoreFailed("disk full"))
        await w.put_role(builders.role(max_leases=3))
        await bound(w)
        assert set(reader.kinds) <= {LeaseEventKind.ISSUED, LeaseEventKind.REVOKED}
