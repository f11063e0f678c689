"""Checks those who watch leases: what they are told and when, and that no slow one is waited for."""

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
    """Reads a watch as it goes on; tests look at what it has heard."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.heard: list[LeaseEvent] = []

    @property
    def kinds(self) -> list[LeaseEventKind]:
        """Return what was heard, in order."""
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
async def test_a_watcher_is_told_a_whole_life() -> None:
    """Issued, renewed, expiring and revoked come in order, each with the service's time of it."""
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
async def test_a_revocation_that_was_asked_for_is_no_expiry() -> None:
    """A lease revoked before its time is REVOKED, and never EXPIRING."""
    async with world() as w, watching(w) as reader:
        made = await w.issue()
        await w.revoke(made.lease.id)
        await asyncio.sleep(10)
        assert reader.kinds == [LeaseEventKind.ISSUED, LeaseEventKind.REVOKED]


@virtual
async def test_failures_come_with_their_reason_until_it_is_stuck_and_after() -> None:
    """Each failed attempt is FAILED with AWS's code, the sixth STUCK too; EXPIRING is told once."""
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
async def test_only_leases_in_the_range_are_told() -> None:
    """A role whose name begins with another's is not taken for it."""
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
        assert [told.lease_id for told in single.heard] == [mine_id]


@virtual
async def test_who_goes_away_leaves_nothing_behind() -> None:
    """Once a watch is closed or cancelled nobody is told anything any more."""
    async with world() as w:
        async with watching(w), watching(w, EVERYTHING):
            assert len(w.engine.lease_events) == 2
        assert len(w.engine.lease_events) == 0


@virtual
async def test_nothing_is_missed_from_the_first_line_of_a_watch_on() -> None:
    """An event that comes before the watcher first reads is told all the same."""
    lease_events = LeaseEventBroker(lambda: 7)
    with lease_events.watch(APP) as happenings:
        lease_events(Renewed("aws/creds/app/x", 1, "bob"))
        assert (await anext(happenings)).kind is LeaseEventKind.RENEWED


@virtual
async def test_what_a_stream_moves_on_from_expires_and_is_not_renewed() -> None:
    """The lease of replaced credentials is EXPIRING and REVOKED when the overlap ends, never RENEWED."""
    async with world() as w, watching(w) as reader, listening(w) as listener:
        await listener.until(2, TTL)
        old = listener.got[0].lease.id
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        told = [one.kind for one in reader.heard if one.lease_id == old]
        assert told == [LeaseEventKind.ISSUED, LeaseEventKind.EXPIRING, LeaseEventKind.REVOKED]
        assert (await w.lease(old)).last_renewal_us == 0


@virtual
async def test_a_slow_watcher_is_ended_and_holds_nobody_up() -> None:
    """With one event too many in its queue a watcher is dropped and told so; others lose nothing."""
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
    """As many events as the queue takes are all told, in order."""
    lease_events = LeaseEventBroker(lambda: 7)
    with lease_events.watch(EVERYTHING) as happenings:
        for number in range(QUEUE):
            lease_events(Renewed(f"aws/creds/app/{number}", 1, "bob"))
        told = [await anext(happenings) for _ in range(QUEUE)]
    assert [one.lease_id for one in told] == [f"aws/creds/app/{number}" for number in range(QUEUE)]


@virtual
async def test_what_is_no_lease_s_is_not_told() -> None:
    """Events of the store, of accounts and of configuration pass by."""
    async with world() as w, watching(w, EVERYTHING) as reader:
        w.engine.lease_events(StoreFailed("disk full"))
        await w.put_role(builders.role(max_leases=3))
        await bound(w)
        assert set(reader.kinds) <= {LeaseEventKind.ISSUED, LeaseEventKind.REVOKED}
