"""Checks what replicas do with the work of one that is silent, and what they know of one another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

from lessor_server.domain.events import ReplicaSilent, Revoked
from lessor_server.domain.lease import State
from lessor_server.engine.replica_ports import FORGET_SECONDS, ReplicaSign
from lessor_server.engine.store_types import ClaimTerms
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, bound, world
from tests.support.replicas import replica
from tests.support.virtual_loop import virtual

TAKEN_OVER_SECONDS = 30.0
CLAIMS = ("claim", "claim_due")
"""The store's methods that claim leases."""


@virtual
async def test_revocations_of_a_replica_that_dies_are_done_by_another_within_30_seconds() -> None:
    """Long before its claims end, which last two minutes."""
    async with world() as w, replica(w, "b") as other:
        async with AsyncExitStack() as life:
            dying = await life.enter_async_context(replica(w, "a"))
            leases = [(await w.issue(ttl=600)).lease.id for _ in range(5)]
            await asyncio.sleep(60)
            claims = await w.store.claim_due(ClaimTerms("a", timedelta(minutes=2)), 10)
            assert not claims
            for lease_id in leases:
                await w.store.revoke(lease_id)
            terms = ClaimTerms("a", timedelta(minutes=2))
            assert len(await w.store.claim(leases, terms)) == len(leases)
            dying.store.cut = True  # as after kill -9 it says nothing more
        await w.stop()
        began = w.now()
        await w.until(lambda: set(w.states().values()) == {State.GONE})
        assert w.now() - began < TAKEN_OVER_SECONDS
        assert [(one.replica, one.rows) for one in other.events.of(ReplicaSilent)] == [("a", 5)]
        assert len(other.events.of(Revoked)) == len(leases)


@virtual
async def test_what_a_replica_claims_after_its_silence_was_noticed_is_taken_over_too() -> None:
    """It continued after a stop, and ended before its next sign."""
    async with world() as w, replica(w, "a"):
        lease_id = (await w.issue(ttl=600)).lease.id
        async with replica(w, "b") as dying:
            dying.store.cut = True
        await w.stop()
        await asyncio.sleep(120)
        await w.store.revoke(lease_id)
        assert await w.store.claim([lease_id], ClaimTerms("b", timedelta(minutes=2)))
        began = w.now()
        await w.until(lambda: w.states()[lease_id] is State.GONE)
        assert w.now() - began < TAKEN_OVER_SECONDS


@virtual
async def test_a_replica_that_starts_takes_over_at_once_from_those_that_are_silent() -> None:
    """As after the end of all of them."""
    async with world() as w:
        async with replica(w, "a") as dying:
            lease_id = (await w.issue(ttl=600)).lease.id
            dying.store.cut = True
        await w.stop()
        await w.store.revoke(lease_id)
        assert await w.store.claim([lease_id], ClaimTerms("a", timedelta(minutes=2)))
        await asyncio.sleep(25)
        began = w.now()
        async with replica(w, "b"):
            await w.until(lambda: w.states()[lease_id] is State.GONE)
        assert w.now() - began < 2


@virtual
async def test_an_intent_of_a_silent_replica_stays_until_its_claim_ends() -> None:
    """Its CreateUser may still be on its way."""
    async with world() as w, replica(w, "b") as other:
        await bound(w)
        await w.stop()
        async with replica(w, "a") as dying:
            intent = await w.store.begin(builders.intent(1), timedelta(minutes=3))
            w.store.rows[intent.id] = replace(w.store.rows[intent.id], claimed_by="a")
            dying.store.cut = True
        await asyncio.sleep(170)
        assert w.states()[intent.id] is State.INTENT
        assert [one.rows for one in other.events.of(ReplicaSilent)] == [0]
        await asyncio.sleep(10 + TAKEN_OVER_SECONDS)
        assert w.states()[intent.id] is State.REVOKING


@virtual
async def test_what_a_live_replica_claims_is_not_taken_over() -> None:
    async with world() as w, replica(w, "b") as other:
        made = await w.issue()
        await w.stop()
        await w.store.revoke(made.lease.id)
        await w.store.claim([made.lease.id], ClaimTerms("a", timedelta(minutes=2)))
        for _ in range(20):
            await w.store.report_alive(ReplicaSign("a", "1.0.0", w.clocks.wall_us()))
            await asyncio.sleep(5)
        assert w.states()[made.lease.id] is State.REVOKING
        assert await w.store.void_claims_of(["a"]) == 0
        assert other.events.of(ReplicaSilent) == []


@virtual
async def test_a_replica_that_ends_in_order_is_no_longer_listed() -> None:
    async with world() as w, replica(w, "a") as staying:
        async with replica(w, "b"):
            await asyncio.sleep(6)
            assert staying.engine.replicas is not None
            assert [one.name for one in staying.engine.replicas.fleet.replicas] == ["a", "b"]
        await asyncio.sleep(6)
        assert [one.name for one in staying.engine.replicas.fleet.replicas] == ["a"]


@virtual
async def test_a_replica_that_died_is_listed_for_ten_minutes() -> None:
    async with world() as w, replica(w, "a") as staying:
        async with replica(w, "b") as dying:
            dying.store.cut = True
        await asyncio.sleep(FORGET_SECONDS - 10)
        assert staying.engine.replicas is not None
        listed = {one.name: one.seen_us for one in staying.engine.replicas.fleet.replicas}
        assert listed["b"] < listed["a"] - int(500e6)
        await asyncio.sleep(20)
        assert [one.name for one in staying.engine.replicas.fleet.replicas] == ["a"]


@virtual
async def test_leases_whose_timers_a_dead_replica_had_end_within_30_seconds() -> None:
    async with world() as w, replica(w, "b"):
        await asyncio.sleep(400)  # past the middle of its window, so it has not seen the lease below
        made = await w.issue(ttl=60)
        await w.stop()
        await asyncio.sleep(60)
        await w.until(lambda: w.states()[made.lease.id] is State.GONE, TAKEN_OVER_SECONDS + BOUND_SECONDS)


@virtual
async def test_an_expiry_is_carried_out_once_although_all_replicas_have_its_timer() -> None:
    async with world() as w, replica(w, "a") as one, replica(w, "b") as two:
        made = [(await w.issue(ttl=900)).lease for _ in range(20)]
        await asyncio.sleep(900)
        await w.until_gone(BOUND_SECONDS)
        sent = [*w.aws.sent, *one.aws.sent, *two.aws.sent]
        deleted = [call.user for call in sent if call.action == "DeleteUser"]
        assert sorted(deleted) == sorted(lease.footprint.user_name for lease in made)


@virtual
async def test_leases_whose_claim_was_not_answered_are_revoked_before_the_claim_ends() -> None:
    """The replica lives and gives signs, so no other one takes them over."""
    async with world() as w, replica(w, "a") as one:
        made = [(await w.issue(ttl=600)).lease.id for _ in range(3)]
        await w.stop()
        await asyncio.sleep(5)
        one.store.deaf_to = CLAIMS
        for lease_id in made:
            await w.store.revoke(lease_id)
        await w.until(lambda: any(row.claimed_by == "a" for row in w.store.rows.values()))
        await asyncio.sleep(2)
        one.store.deaf_to = ()
        began = w.now()
        await w.until(lambda: set(w.states().values()) == {State.GONE})
        assert w.now() - began < 10


@virtual
async def test_a_lease_whose_result_was_not_written_is_tried_again_before_the_claim_ends() -> None:
    async with world() as w, replica(w, "a") as one:
        made = await w.issue(ttl=600)
        await w.stop()
        await w.store.revoke(made.lease.id)
        await w.until(lambda: "DeleteUser" in one.aws.actions())
        one.store.cut = True
        await asyncio.sleep(3)
        one.store.cut = False
        await w.until(lambda: set(w.states().values()) == {State.GONE}, 10)
