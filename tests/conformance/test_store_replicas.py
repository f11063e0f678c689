"""Checks the table of replicas, in the stores that several processes can share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from tests.support.hand_clock import HandClock
from tests.support.stores import Bench, bench

from lessor_server.adapters.postgres import replicas as on_postgres
from lessor_server.adapters.sql.transaction import Transaction
from lessor_server.domain.lease import State
from lessor_server.domain.rate_shares import RESERVED_SECONDS, ShareRequest
from lessor_server.engine.replica_ports import (
    EVENT_SECONDS,
    FORGET_SECONDS,
    SILENT_SECONDS,
    ReplicaSign,
    ReplicaStore,
    SharedEvent,
)
from lessor_server.engine.store_types import ClaimTerms

SPAN = timedelta(minutes=2)


@pytest.fixture(name="b", params=["memory", "postgres"])
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """Open each store that processes can share, with a clock that the test moves."""
    clock = HandClock()

    async def read_clock(_: Transaction) -> int:
        return clock.wall

    monkeypatch.setattr(on_postgres, "_read_clock", read_clock)
    async with bench(request.param, tmp_path, clock) as made:
        yield made


def shared(b: Bench) -> ReplicaStore:
    """Return the store as replicas use it."""
    return cast("ReplicaStore", b.store)


def sign(b: Bench, name: str, *shares: ShareRequest, ahead_us: int = 0) -> ReplicaSign:
    """Return a sign of life."""
    return ReplicaSign(name, "1.2.3", b.clock.wall + ahead_us, (("aws.rate", "ab12"),), shares)


async def test_a_sign_of_life_lists_all_replicas(b: Bench) -> None:
    await shared(b).report_alive(sign(b, "b", ahead_us=3_600_000_000))
    b.clock.advance(1)
    fleet = await shared(b).report_alive(sign(b, "a"))
    assert fleet.now_us == b.clock.wall
    assert [(one.name, one.version, fleet.now_us - one.seen_us) for one in fleet.replicas] == [
        ("a", "1.2.3", 0),
        ("b", "1.2.3", 1_000_000),
    ]
    assert [one.clock_ahead_us for one in fleet.replicas] == [0, 3_600_000_000]
    assert fleet.replicas[0].settings == (("aws.rate", "ab12"),)


async def test_a_replica_is_listed_until_it_leaves_or_was_silent_for_ten_minutes(b: Bench) -> None:
    for name in ("a", "b", "c"):
        await shared(b).report_alive(sign(b, name))
    await shared(b).remove_replica("b")
    b.clock.advance(FORGET_SECONDS - 1)
    fleet = await shared(b).report_alive(sign(b, "a"))
    assert [(one.name, one.is_silent(fleet.now_us)) for one in fleet.replicas] == [("a", False), ("c", True)]
    b.clock.advance(1)
    assert [one.name for one in (await shared(b).report_alive(sign(b, "a"))).replicas] == ["a"]


async def test_shares_are_granted_from_what_the_others_have_not_reserved(b: Bench) -> None:
    first = await shared(b).report_alive(sign(b, "a", ShareRequest("1", 100.0, 500.0, 0.0)))
    assert [one.share for one in first.granted] == [98.0]
    second = await shared(b).report_alive(sign(b, "b", ShareRequest("1", 100.0, 500.0, 0.0)))
    assert [(one.share, one.wanted) for one in second.granted] == [(2.0, 50.0)]
    await shared(b).report_alive(sign(b, "a", ShareRequest("1", 100.0, 500.0, 98.0)))
    fleet = await shared(b).report_alive(sign(b, "a", ShareRequest("1", 100.0, 500.0, 50.0)))
    assert [row.reserved for one in fleet.replicas for row in one.shares] == [50.0, 2.0]
    third = await shared(b).report_alive(sign(b, "b", ShareRequest("1", 100.0, 500.0, 0.0)))
    assert [one.share for one in third.granted] == [50.0]


async def test_a_share_stays_reserved_until_it_has_ended_even_if_its_replica_leaves(b: Bench) -> None:
    await shared(b).report_alive(sign(b, "a", ShareRequest("1", 100.0, 500.0, 0.0)))
    await shared(b).remove_replica("a")
    b.clock.advance(RESERVED_SECONDS - 0.001)
    early = await shared(b).report_alive(sign(b, "b", ShareRequest("1", 100.0, 500.0, 0.0)))
    b.clock.advance(0.001)
    late = await shared(b).report_alive(sign(b, "b", ShareRequest("1", 100.0, 500.0, 0.0)))
    assert ([one.share for one in early.granted], [one.share for one in late.granted]) == ([2.0], [98.0])


async def test_accounts_have_shares_of_their_own(b: Bench) -> None:
    asked = (ShareRequest("1", 100.0, 5.0, 0.0), ShareRequest("2", 50.0, 0.0, 0.0))
    fleet = await shared(b).report_alive(sign(b, "a", *asked))
    assert [(one.account, one.share) for one in fleet.granted] == [("1", 98.0), ("2", 49.0)]


async def test_replicas_that_ask_at_the_same_time_get_no_more_than_the_rate(b: Bench) -> None:
    names = [f"r{number}" for number in range(8)]
    fleets = await asyncio.gather(
        *(shared(b).report_alive(sign(b, name, ShareRequest("1", 100.0, 1000.0, 0.0))) for name in names)
    )
    granted = [one.share for fleet in fleets for one in fleet.granted]
    assert sum(granted) == 100.0


async def test_only_revocations_of_silent_replicas_become_due(b: Bench) -> None:
    for name in ("dead", "alive"):
        await shared(b).report_alive(sign(b, name))
    leases = {}
    for number, name in enumerate(("dead", "alive", "unknown")):
        leases[name] = await b.active(number)
        await b.store.revoke(leases[name].id)
        assert await b.store.claim([leases[name].id], ClaimTerms(name, SPAN))
    intent = await b.begun(3)
    b.clock.advance(SILENT_SECONDS - 0.001)
    await shared(b).report_alive(sign(b, "alive"))
    assert await shared(b).void_claims_of(["alive", "dead"]) == 0
    b.clock.advance(0.001)
    assert await shared(b).void_claims_of(["alive", "dead"]) == 1
    assert await shared(b).void_claims_of(["alive", "dead"]) == 0
    again = await b.store.claim_due(ClaimTerms("alive", SPAN), 10)
    assert [(lease.id, lease.state) for lease in again] == [(leases["dead"].id, State.REVOKING)]
    assert again[0].generation > (await b.row(leases["alive"].id)).generation
    assert (await b.row(intent.id)).state is State.INTENT


async def test_lost_claims_of_one_replica_become_due_except_those_that_it_keeps(b: Bench) -> None:
    leases = [await b.active(number) for number in range(3)]
    for number, lease in enumerate(leases):
        await b.store.revoke(lease.id)
        assert await b.store.claim([lease.id], ClaimTerms("other" if number == 2 else "mine", SPAN))
    intent = await b.begun(3)
    assert await shared(b).void_lost_claims("mine", [leases[0].id]) == 1
    again = await b.store.claim_due(ClaimTerms("mine", SPAN), 10)
    assert [lease.id for lease in again] == [leases[1].id]
    assert (await b.row(intent.id)).state is State.INTENT


async def test_a_step_of_the_replica_that_lost_its_claim_is_not_written(b: Bench) -> None:
    await shared(b).report_alive(sign(b, "dead"))
    lease = await b.active()
    await b.store.revoke(lease.id)
    (claimed,) = await b.store.claim([lease.id], ClaimTerms("dead", SPAN))
    b.clock.advance(SILENT_SECONDS)
    assert await shared(b).void_claims_of(["dead"]) == 1
    assert not await b.store.is_current(claimed)


async def test_events_of_other_replicas_are_read_in_the_order_of_their_numbers(b: Bench) -> None:
    at = b.clock.wall
    await shared(b).append_events("b", [SharedEvent("ISSUED", "before", "alice", at - 1)])
    begin = await shared(b).find_last_event(at)
    assert await shared(b).find_last_event(at - 1) < begin
    events = [SharedEvent("ISSUED", f"aws/creds/app/{one}", "alice", at + one) for one in range(3)]
    await shared(b).append_events("a", events[:2])
    await shared(b).append_events("b", [SharedEvent("REVOKED", "x", "", at, "no")])
    await shared(b).append_events("a", events[2:])
    found = await shared(b).list_events(begin, "b", 10)
    assert [event for _, event in found] == events
    assert [number - begin for number, _ in found] == [1, 2, 4]
    assert await shared(b).list_events(begin, "b", 1) == found[:1]
    assert await shared(b).list_events(begin + 2, "a", 10) == [
        (begin + 3, SharedEvent("REVOKED", "x", "", at, "no"))
    ]
    assert await shared(b).find_last_event(at + 10) == begin + 4
    b.clock.advance(EVENT_SECONDS + 1)
    await shared(b).report_alive(sign(b, "a"))
    assert await shared(b).list_events(begin, "c", 10) == []
