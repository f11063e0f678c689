"""The rules of a store, held by every kind of it: the steps of a lease and each refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import OPENERS, SPAN, START_US, TERMS, Bench, bench, intent

from lessor_server.domain.errors.base import Aborted, LessorError, MountFull, NotFound, RoleFull
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.lease import Footprint, State
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.mount import MountState

SECOND = 1_000_000


@pytest.fixture(name="b", params=list(OPENERS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Open each kind of store in turn."""
    async with bench(request.param, tmp_path) as made:
        yield made


# --- begin and activate ----------------------------------------------------------------------------------


async def test_an_intent_is_stored_whole_and_claimed(b: Bench) -> None:
    """What begin stores is what is read, claimed, and due when the claim runs out."""
    wanted = intent(7)
    claim = await b.store.begin(wanted, timedelta(seconds=90))
    row = await b.row(wanted.id)
    assert row == claim
    assert (row.footprint, row.ttl, row.owner, row.role) == (wanted.footprint, wanted.ttl, "root", "app")
    assert (row.state, row.generation, row.access_key_id) == (State.INTENT, 1, "")
    assert row.due_us == row.last_create_us == START_US + 90 * SECOND
    assert (row.created_us, row.issue_us, row.expires_us) == (START_US, 0, 0)
    assert await lease_steps.is_unchanged(b.store, claim)


async def test_an_active_lease_counts_its_time_from_now(b: Bench) -> None:
    """Ttl and longest life begin when the lease becomes ACTIVE, not when it was begun."""
    claim = await b.begun(ttl=timedelta(seconds=60), max_ttl=timedelta(seconds=600))
    b.clock.advance(10)
    lease = await lease_steps.activate(b.store, claim, "AKIA")
    assert lease is not None
    assert lease == await b.row(claim.id)
    assert (lease.state, lease.access_key_id, lease.generation) == (State.ACTIVE, "AKIA", 2)
    assert lease.issue_us == START_US + 10 * SECOND
    assert lease.expires_us == lease.due_us == lease.issue_us + 60 * SECOND
    assert lease.max_expires_us == lease.issue_us + 600 * SECOND
    assert not await lease_steps.is_unchanged(b.store, claim)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"mount": "none"}, NotFound),
        ({"root_version": 2}, Aborted),
        ({"footprint": Footprint("aws:000000000000", "u", "/")}, Aborted),
    ],
)
async def test_an_intent_that_does_not_fit_is_refused(
    b: Bench, changes: dict[str, Any], kind: type[LessorError]
) -> None:
    """No mount, another root or another account: nothing is stored, and the reason is clear."""
    with pytest.raises(kind):
        await b.begun(**changes)
    assert await b.store.count(EVERYTHING, None) == []


async def test_a_mount_that_is_being_disabled_takes_no_intent(b: Bench) -> None:
    """An intent is stored only while its mount is enabled."""
    mount = builders.mount()
    assert await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    with pytest.raises(MountDisabling):
        await b.begun()


async def test_a_lease_id_that_was_drawn_before_is_to_be_drawn_again(b: Bench) -> None:
    """Whatever became of the first lease, a second of its id is ABORTED, with a wait, and changes nothing."""
    first = await b.active()
    with pytest.raises(Aborted) as again:
        await b.begun()
    assert again.value.retry_in is not None
    assert await b.row(first.id) == first


async def test_limits_count_live_rows_only(b: Bench) -> None:
    """INTENT, ACTIVE and REVOKING count against both limits; a tombstone makes room again."""
    limits: dict[str, Any] = {"max_users": 4, "max_leases": 3}
    await b.begun(0, **limits)
    await b.active(1, **limits)
    claim = await b.taken(2, **limits)
    with pytest.raises(RoleFull) as role_full:
        await b.begun(3, **limits)
    assert role_full.value.subject == "role/aws/app"
    await b.begun(4, role_name="other", **limits)
    with pytest.raises(MountFull) as mount_full:
        await b.begun(5, role_name="other", **limits)
    assert mount_full.value.subject == "mount/aws"
    await lease_steps.finish(b.store, claim)
    await b.begun(6, **limits)


async def test_a_limit_is_never_passed_by_those_who_come_at_once(b: Bench) -> None:
    """Of a hundred intents at the same time exactly as many are stored as the limit allows."""

    async def one(number: int) -> bool:
        try:
            await b.begun(number, max_users=30)
        except MountFull:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(100)]
    assert sum(task.result() for task in tasks) == 30
    assert [one.count for one in await b.store.count(EVERYTHING, None)] == [30]


async def test_an_intent_is_activated_once(b: Bench) -> None:
    """Only the holder of the claim makes a lease ACTIVE, and only once."""
    claim = await b.begun()
    assert await lease_steps.activate(b.store, claim, "AKIA") is not None
    assert await lease_steps.activate(b.store, claim, "AKIB") is None
    assert (await b.row(claim.id)).access_key_id == "AKIA"


async def test_an_intent_whose_time_ran_out_is_taken_from_its_maker(b: Bench) -> None:
    """When the claim of an intent runs out another may take it, and the maker can neither use nor free it."""
    claim = await b.begun()
    b.clock.advance(SPAN.total_seconds())
    (taken,) = await b.store.claim([claim.id], TERMS)
    assert taken.state is State.REVOKING
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert await lease_steps.activate(b.store, claim, "AKIA") is None
    assert not await lease_steps.abort(b.store, claim, "", 0)
    assert await lease_steps.is_unchanged(b.store, taken)


async def test_a_released_intent_is_due_at_once(b: Bench) -> None:
    """Release says why, when CreateUser was last sent, and puts the row up for revocation."""
    claim = await b.begun()
    b.clock.advance(1)
    assert await lease_steps.abort(b.store, claim, "no", START_US)
    row = await b.row(claim.id)
    assert (row.state, row.last_error, row.last_create_us) == (State.REVOKING, "no", START_US)
    assert row.due_us == START_US + SECOND
    assert not await lease_steps.abort(b.store, claim, "again", 0)


# --- renew -----------------------------------------------------------------------------------------------


async def test_a_renewal_moves_expiry_and_deadline(b: Bench) -> None:
    """A renewed lease is due at its new expiry, and the one who holds the old row cannot renew it again."""
    lease = await b.active()
    b.clock.advance(100)
    renewed = await lease_steps.renew(b.store, lease, lease.expires_us + 5)
    assert renewed is not None
    assert renewed == await b.row(lease.id)
    assert renewed.expires_us == renewed.due_us == lease.expires_us + 5
    assert renewed.last_renewal_us == START_US + 100 * SECOND
    retired = await lease_steps.retire(b.store, renewed, START_US + 200 * SECOND)
    assert retired is not None
    assert (retired.expires_us, retired.last_renewal_us) == (
        START_US + 200 * SECOND,
        renewed.last_renewal_us,
    )
    assert await lease_steps.renew(b.store, lease, lease.expires_us + 9) is None


async def test_an_expired_lease_is_not_renewed(b: Bench) -> None:
    """At its expiry a lease can no longer be renewed, though nothing has touched it."""
    lease = await b.active(ttl=timedelta(seconds=60))
    b.clock.advance(60)
    assert await lease_steps.renew(b.store, lease, lease.expires_us + SECOND) is None
    assert await b.row(lease.id) == lease


async def test_a_renewed_lease_is_not_claimed_by_an_old_hint(b: Bench) -> None:
    """A claim at the old expiry of a lease that was renewed meanwhile gets nothing."""
    lease = await b.active(ttl=timedelta(seconds=60))
    await lease_steps.renew(b.store, lease, lease.expires_us + 60 * SECOND)
    b.clock.advance(61)
    assert await b.store.claim([lease.id], TERMS) == []
    assert await b.store.claim_due(TERMS, 10) == []
    assert (await b.row(lease.id)).state is State.ACTIVE


# --- revoke, claim, fail, finish, reopen -----------------------------------------------------------------


async def test_a_revocation_voids_the_claim_of_an_intent(b: Bench) -> None:
    """Revoking a lease that is being made takes it from its maker and makes it due at once."""
    claim = await b.begun()
    row = await b.store.revoke(claim.id)
    assert row is not None
    assert (row.state, row.due_us) == (State.REVOKING, START_US)
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert await lease_steps.activate(b.store, claim, "AKIA") is None


async def test_a_revocation_disturbs_nobody_who_works_on_it(b: Bench) -> None:
    """Revoking what somebody is revoking changes nothing; a row that only waits becomes due at once."""
    claim = await b.taken()
    assert await b.store.revoke(claim.id) == claim
    assert await lease_steps.is_unchanged(b.store, claim)
    await lease_steps.reschedule(b.store, claim, "no", timedelta(hours=1), 1, 0)
    row = await b.store.revoke(claim.id)
    assert row is not None
    assert (row.due_us, row.attempts) == (START_US, 1)


async def test_what_is_gone_stays_gone_and_what_never_was_is_none(b: Bench) -> None:
    """A tombstone is shown as it is; an unknown id has no row."""
    claim = await b.taken()
    assert await lease_steps.finish(b.store, claim)
    tombstone = await b.store.revoke(claim.id)
    assert tombstone is not None
    assert tombstone.state is State.GONE
    assert tombstone == await b.row(claim.id)
    assert await b.store.revoke("aws/creds/app/none") is None


async def test_a_claim_is_for_what_is_due_and_free(b: Bench) -> None:
    """Of several ids those that are due are claimed once; a claim that ran out may be claimed again."""
    early = await b.active(0, ttl=timedelta(seconds=10))
    late = await b.active(1, ttl=timedelta(seconds=1000))
    b.clock.advance(10)
    ids = [early.id, late.id, "aws/creds/app/none"]
    (claim,) = await b.store.claim(ids, TERMS)
    assert claim == await b.row(early.id)
    assert (claim.state, claim.due_us) == (State.REVOKING, START_US + 10 * SECOND + 120 * SECOND)
    assert await b.store.claim(ids, TERMS) == []
    b.clock.advance(120)
    (again,) = await b.store.claim(ids, TERMS)
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert await lease_steps.is_unchanged(b.store, again)


async def test_what_is_due_is_claimed_earliest_first(b: Bench) -> None:
    """Claims come in the order due, no more than asked for, and without the accounts that are left out."""
    for number, seconds in enumerate((50, 10, 40, 20, 30)):
        await b.active(number, ttl=timedelta(seconds=seconds))
    other = Footprint("aws:999999999999", "other", "/")
    root = replace(builders.stored_root("second"), account=other.account)
    await b.store.put_mount(None, builders.mount("second"))
    await b.store.put_root(root, 0)
    await b.active(9, mount_name="second", footprint=other, ttl=timedelta(seconds=5))
    b.clock.advance(45)
    without = frozenset({other.account})
    first = await b.store.claim_due(TERMS, 3, without)
    assert [claim.ttl.total_seconds() for claim in first] == [10, 20, 30]
    rest = await b.store.claim_due(TERMS, 9)
    assert [claim.ttl.total_seconds() for claim in rest] == [5, 40]
    assert await b.store.claim_due(TERMS, 9) == []


async def test_a_failed_attempt_gives_the_row_back(b: Bench) -> None:
    """Fail frees the row, due again later, with its error and its counts; it can't be done twice."""
    claim = await b.taken()
    assert await lease_steps.reschedule(b.store, claim, "refused", timedelta(seconds=30), 3, 2)
    row = await b.row(claim.id)
    assert (row.state, row.last_error, row.attempts, row.not_found_count) == (State.REVOKING, "refused", 3, 2)
    assert row.due_us == START_US + 30 * SECOND
    assert not await lease_steps.reschedule(b.store, claim, "refused", timedelta(seconds=30), 4, 2)
    assert not await lease_steps.finish(b.store, claim)
    assert await b.store.claim([claim.id], TERMS) == []


async def test_without_a_wait_a_failed_lease_stays_due_at_its_expiry(b: Bench) -> None:
    """Silence says nothing about a row: it keeps its place, and one that was asked for is due now."""
    expired, asked = await b.active(0, ttl=timedelta(seconds=10)), await b.active(1)
    b.clock.advance(20)
    await b.store.revoke(asked.id)
    for claim in await b.store.claim([expired.id, asked.id], TERMS):
        b.clock.advance(1)
        assert await lease_steps.reschedule(b.store, claim, "silence", timedelta(0), 0, 0)
    assert (await b.row(expired.id)).due_us == expired.expires_us
    assert (await b.row(asked.id)).due_us == START_US + 22 * SECOND


async def test_a_tombstone_is_never_due(b: Bench) -> None:
    """What is finished is claimed by nobody, and has no error left."""
    claim = await b.taken()
    assert await lease_steps.finish(b.store, claim)
    b.clock.advance(10**6)
    assert await b.store.claim([claim.id], TERMS) == []
    assert await b.store.claim_due(TERMS, 9) == []
    assert (await b.row(claim.id)).last_error == ""


async def test_a_lost_claim_is_reopened_tombstone_or_not(b: Bench) -> None:
    """A maker that finds its user made late has the row looked after again, with the later CreateUser."""
    claim = await b.taken()
    for finished in (False, True):
        if finished:
            (claim,) = await b.store.claim([claim.id], TERMS)
            await lease_steps.finish(b.store, claim)
        await b.store.reopen(claim.id, START_US + 7 * SECOND * 100)
        row = await b.row(claim.id)
        assert (row.state, row.due_us, row.not_found_count) == (State.REVOKING, START_US, 0)
        assert row.last_create_us == START_US + 700 * SECOND
        assert not await lease_steps.is_unchanged(b.store, claim)
    await b.store.reopen("aws/creds/app/none", 1)


async def test_no_step_touches_an_active_lease_but_its_own(b: Bench) -> None:
    """Reopen, finish and fail pass an ACTIVE lease by."""
    lease = await b.active()
    await b.store.reopen(lease.id, 1)
    assert not await lease_steps.finish(b.store, lease)
    assert not await lease_steps.reschedule(b.store, lease, "", timedelta(0), 0, 0)
    assert await b.row(lease.id) == lease


async def test_a_new_process_takes_every_claim_over(b: Bench) -> None:
    """Intents and claimed rows become due at once; ACTIVE leases and rows that wait are left alone."""
    making, active, taken = await b.begun(0), await b.active(1), await b.taken(2)
    waiting = await b.taken(3)
    await lease_steps.reschedule(b.store, waiting, "no", timedelta(hours=1), 1, 0)
    before = await b.row(waiting.id)
    assert await b.store.void_stale_claims() == 2
    for claim in (making, taken):
        row = await b.row(claim.id)
        assert (row.state, row.due_us) == (State.REVOKING, START_US)
        assert not await lease_steps.is_unchanged(b.store, claim)
    assert (await b.row(active.id), await b.row(waiting.id)) == (active, before)
    assert await b.store.void_stale_claims() == 0
    assert (await b.row(making.id)).last_create_us == START_US + 120 * SECOND
