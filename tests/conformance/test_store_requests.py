"""Checks the rules of request ids and undelivered leases that every kind of store has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support import lease_steps
from tests.support.stores import SPAN, START_US, TERMS, Bench, intent

from lessor_server.domain.errors.base import Aborted
from lessor_server.domain.lease import Request, State
from lessor_server.domain.lease_id import EVERYTHING

SECOND = 1_000_000
ONE = Request("11111111-1111-4111-8111-111111111111", "wish")


async def test_a_request_id_is_kept_with_its_lease(b: Bench) -> None:
    lease = await b.active(request=ONE)
    assert lease.request == ONE
    assert (await b.store.load_issue_context("aws", "app", "root", ONE.id)).earlier == lease
    for mount, role, owner, request_id in (
        ("second", "app", "root", ONE.id),
        ("aws", "other", "root", ONE.id),
        ("aws", "app", "alice", ONE.id),
        ("aws", "app", "root", "another"),
    ):
        assert (await b.store.load_issue_context(mount, role, owner, request_id)).earlier is None
    assert (await b.store.load_issue_context("aws", "app")).earlier is None


async def test_a_request_id_names_one_lease(b: Bench) -> None:
    await lease_steps.finish(b.store, await b.taken(0, request=ONE))
    with pytest.raises(Aborted):
        await b.begun(1, request=replace(ONE, digest="other"))
    await b.begun(2, request=ONE, owner="alice")
    await b.begun(3, request=ONE, role_name="other")
    await b.begun(4)
    await b.begun(5)


async def test_of_concurrent_intents_of_one_request_one_is_stored(b: Bench) -> None:
    async def one(number: int) -> bool:
        try:
            await b.begun(number, request=ONE)
        except Aborted:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(12)]
    assert sum(task.result() for task in tasks) == 1
    assert [found.count for found in await b.store.count(EVERYTHING, None)] == [1]


async def test_an_undelivered_lease_lives_at_most_a_minute(b: Bench) -> None:
    for number, (ttl, life) in enumerate(((3600, 60), (20, 20))):
        claim = await b.begun(number, ttl=timedelta(seconds=ttl))
        lease = await lease_steps.activate(b.store, claim, "AKIA", undelivered=True)
        assert lease is not None
        assert lease.undelivered
        assert lease.expires_us == lease.due_us == START_US + life * SECOND
        assert lease.max_expires_us == START_US + 86_400 * SECOND


async def test_replacing_the_key_does_not_change_the_expiry(b: Bench) -> None:
    lease = await b.active()
    b.clock.advance(100)
    again = await lease_steps.replace_key(b.store, lease, "AKIB")
    assert again is not None
    assert again == replace(lease, access_key_id="AKIB", generation=lease.generation + 1)
    assert await b.row(lease.id) == again
    assert await lease_steps.replace_key(b.store, lease, "AKIC") is None


async def test_an_undelivered_lease_taken_by_a_repeat_has_its_ttl_from_the_issue(b: Bench) -> None:
    lease = await lease_steps.activate(b.store, await b.begun(), "AKIA", undelivered=True)
    assert lease is not None
    b.clock.advance(59)
    taken = await lease_steps.replace_key(b.store, lease, "AKIB")
    assert taken is not None
    assert (taken.undelivered, taken.expires_us, taken.due_us) == (False, *[START_US + 3600 * SECOND] * 2)


@pytest.mark.parametrize("state", ["INTENT", "REVOKING", "GONE", "expired"])
async def test_only_an_active_lease_gets_a_new_key(b: Bench, state: str) -> None:
    if state == "INTENT":
        lease = await b.begun()
    elif state == "expired":
        lease = await b.active(ttl=timedelta(seconds=10))
        b.clock.advance(10)
    else:
        claim = await b.taken()
        if state == "GONE":
            await lease_steps.finish(b.store, claim)
        lease = await b.row(claim.id)
    assert await lease_steps.replace_key(b.store, lease, "AKIB") is None
    assert await b.row(lease.id) == lease


async def test_a_lease_marked_undelivered_ends_in_a_minute(b: Bench) -> None:
    """Never later than before, and once per generation."""
    long, short = await b.active(0), await b.active(1, ttl=timedelta(seconds=100))
    b.clock.advance(50)
    back = await lease_steps.mark_undelivered(b.store, long)
    assert back is not None
    assert (back.state, back.undelivered) == (State.ACTIVE, True)
    assert back.expires_us == back.due_us == START_US + 110 * SECOND
    sooner = await lease_steps.mark_undelivered(b.store, short)
    assert sooner is not None
    assert sooner.expires_us == START_US + 100 * SECOND
    assert await lease_steps.mark_undelivered(b.store, long) is None
    assert await lease_steps.mark_undelivered(b.store, await b.begun(2)) is None


async def test_during_a_hold_an_active_lease_is_not_claimed(b: Bench) -> None:
    """Explicit revocations and intents are claimed."""
    held: Any = replace(TERMS, held=True)
    expired = await b.active(0, ttl=timedelta(seconds=1))
    intended = await b.begun(1, span=timedelta(seconds=1))
    asked = await b.active(2)
    await b.store.revoke(asked.id)
    b.clock.advance(1)
    assert await b.store.claim([expired.id], held) == []
    claims = await b.store.claim_due(held, 9)
    assert {claim.id for claim in claims} == {intended.id, asked.id}
    assert [claim.id for claim in await b.store.claim_due(TERMS, 9)] == [expired.id]


async def test_held_leases_do_not_fill_the_limit_of_a_claim(b: Bench) -> None:
    for number in range(5):
        await b.active(number, ttl=timedelta(seconds=1))
    b.clock.advance(5)
    asked = await b.store.begin(intent(9), timedelta(0))
    (claim,) = await b.store.claim_due(replace(TERMS, held=True), 1)
    assert claim.id == asked.id
    assert claim.due_us == b.clock.wall + int(SPAN.total_seconds()) * SECOND
