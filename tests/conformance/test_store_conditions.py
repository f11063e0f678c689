"""Checks the conditions of each step of a lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.support import builders, lease_steps
from tests.support.stores import START_US, TERMS, Bench

from lessor_server.domain.lease import TOMBSTONE_LIFE, State
from lessor_server.domain.lease_id import IdRange

SECOND = 1_000_000


async def test_a_claim_of_another_generation_changes_nothing(b: Bench) -> None:
    begun, taken = await b.begun(0), await b.taken(1)
    old = [replace(claim, generation=claim.generation + 1) for claim in (begun, taken)]
    assert await lease_steps.activate(b.store, old[0], "AKIA") is None
    assert not await lease_steps.abort(b.store, old[0], "no", 0)
    assert not await lease_steps.reschedule(b.store, old[1], "no", timedelta(0), 1, 0)
    assert not await lease_steps.finish(b.store, old[1])
    assert (await b.row(begun.id), await b.row(taken.id)) == (begun, taken)


async def test_a_reopened_row_keeps_the_latest_create_user(b: Bench) -> None:
    claim = await b.taken()
    await b.store.reopen(claim.id, START_US + 900 * SECOND)
    await b.store.reopen(claim.id, START_US + 5 * SECOND)
    assert (await b.row(claim.id)).last_create_us == START_US + 900 * SECOND


async def test_a_tombstone_younger_than_the_listing_is_not_dropped(b: Bench) -> None:
    begun = await b.begun()
    await lease_steps.abort(b.store, begun, "AWS refused", 0)
    (claim,) = await b.store.claim([begun.id], TERMS)
    began_us = b.store.now()
    b.clock.advance(60)
    await lease_steps.finish(b.store, claim)
    b.clock.advance(TOMBSTONE_LIFE.total_seconds() + 3600)
    assert await b.store.purge_tombstones(builders.ACCOUNT, began_us + 59 * SECOND) == 0
    assert (await b.row(claim.id)).state is State.GONE


async def test_a_reopened_row_restarts_its_checks_for_a_missing_user(b: Bench) -> None:
    claim = await b.taken()
    assert await lease_steps.reschedule(b.store, claim, "AWS does not show the user", timedelta(0), 0, 3)
    await b.store.reopen(claim.id, START_US)
    assert (await b.row(claim.id)).not_found_count == 0


async def test_a_prefix_does_not_include_a_lease_begun_in_the_future(b: Bench) -> None:
    await b.active(0)
    b.clock.boot += 60 * SECOND
    await b.active(1)
    b.clock.boot -= 60 * SECOND
    prefix, _ = await b.store.open_prefix(IdRange("aws/creds/app/", "aws/creds/app0"))
    assert await b.store.mark_range_revoking(prefix, "", 10) == [builders.intent(0).id]
