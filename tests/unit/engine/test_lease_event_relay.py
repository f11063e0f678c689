"""Checks that a watch of one replica shows what happens on all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.engine.streams.lease_event_relay import EXCHANGE_SECONDS
from lessor_server.engine.streams.lease_events import LeaseEvent, LeaseEventKind
from tests.support.engine_world import World, world
from tests.support.replicas import Replica, replica
from tests.support.virtual_loop import virtual

K = LeaseEventKind
LATE_SECONDS = 2.0


@asynccontextmanager
async def watching(one: Replica, owner: str | None = None) -> AsyncIterator[list[LeaseEvent]]:
    """Watch on one replica for the length of the block; yield the list of what was shown."""
    shown: list[LeaseEvent] = []

    async def read() -> None:
        with one.engine.lease_events.watch(EVERYTHING, owner) as watch:
            async for event in watch:
                shown.append(event)  # noqa: PERF401 - the watch does not end

    async with asyncio.TaskGroup() as group:
        task = group.create_task(read())
        await asyncio.sleep(0)
        yield shown
        task.cancel()


@asynccontextmanager
async def pair(w: World) -> AsyncIterator[tuple[Replica, Replica]]:
    """Run two replicas that know each other."""
    async with replica(w, "a") as one, replica(w, "b") as two:
        await asyncio.sleep(6)
        yield one, two


async def issue_at(w: World, one: Replica, ttl: float = 600.0) -> str:
    """Issue a credential at a replica; return the lease's id."""
    before, w._engine = w._engine, one.engine
    try:
        return (await w.issue(ttl=ttl)).lease.id
    finally:
        w._engine = before


@virtual
async def test_a_watch_of_one_replica_shows_what_happens_on_all_within_two_seconds() -> None:
    async with world() as w, pair(w) as (one, two), watching(one) as shown:
        first = await issue_at(w, two)
        await asyncio.sleep(LATE_SECONDS)
        assert [(event.kind, event.lease_id) for event in shown] == [(K.ISSUED, first)]
        second = await issue_at(w, one)
        await asyncio.sleep(LATE_SECONDS)
        assert [(event.kind, event.lease_id) for event in shown[1:]] == [(K.ISSUED, second)]


@virtual
async def test_each_event_is_shown_once_and_in_order() -> None:
    async with world() as w, pair(w) as (one, two), watching(one) as shown, watching(two) as also:
        ids = [await issue_at(w, (one, two)[number % 2], ttl=20) for number in range(10)]
        await asyncio.sleep(30)
        for seen in (shown, also):
            for lease_id in ids:
                kinds = [event.kind for event in seen if event.lease_id == lease_id]
                assert kinds == [K.ISSUED, K.EXPIRING, K.REVOKED]


@virtual
async def test_a_watch_shows_nothing_from_before_its_begin() -> None:
    async with world() as w, pair(w) as (one, two):
        await issue_at(w, two)
        await asyncio.sleep(0.2)
        async with watching(one) as shown:
            await asyncio.sleep(10)
            assert shown == []
            await issue_at(w, two)
            await asyncio.sleep(LATE_SECONDS)
            assert len(shown) == 1


@virtual
async def test_a_watch_of_one_owner_shows_no_event_of_another_replica_about_others() -> None:
    async with world() as w, pair(w) as (one, two), watching(one, owner="bob") as shown:
        await issue_at(w, two)  # alice's
        await asyncio.sleep(10)
        assert shown == []


@virtual
async def test_a_watch_on_a_replica_that_has_just_started_shows_what_happens_on_the_others() -> None:
    """They learn of it within seconds, and keep their events until then."""
    async with world() as w, replica(w, "a") as one:
        await asyncio.sleep(6)
        async with replica(w, "b") as two, watching(two) as shown:
            made = await issue_at(w, one)
            await asyncio.sleep(6)
            assert [event.lease_id for event in shown] == [made]


@virtual
async def test_events_are_shown_after_an_outage_of_the_store() -> None:
    async with world() as w, pair(w) as (one, two), watching(one) as shown:
        made = await issue_at(w, two)
        one.store.cut = True
        await asyncio.sleep(9)
        one.store.cut = False
        await asyncio.sleep(LATE_SECONDS)
        assert [event.lease_id for event in shown] == [made]


@virtual
async def test_a_replica_without_peers_adds_no_events() -> None:
    async with world() as w, replica(w, "a") as one:
        for _ in range(5):
            await issue_at(w, one)
            await asyncio.sleep(EXCHANGE_SECONDS)
        assert w.store.events == []
