"""Checks the rules of bulk revocations and of abandoned leases that every kind of store has."""

from __future__ import annotations

from datetime import timedelta

from tests.support import lease_steps
from tests.support.stores import START_US, TERMS, Bench

from lessor_server.domain.lease import CREATE_GRACE, TOMBSTONE_LIFE, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.store_types import BulkRevocation, Progress

SECOND = 1_000_000
ALL = IdRange("aws/", "aws0")
APP = IdRange("aws/creds/app/", "aws/creds/app0")
GRACE, WEEK = CREATE_GRACE.total_seconds(), TOMBSTONE_LIFE.total_seconds()


# --- prefixes --------------------------------------------------------------------------------------------


async def test_a_prefix_includes_the_live_leases_of_its_range(b: Bench) -> None:
    await b.begun(0)
    await b.active(1)
    await b.taken(2)
    await lease_steps.finish(b.store, await b.taken(3))
    await b.active(4, role_name="other")
    assert await b.store.open_prefix(APP) == (BulkRevocation(APP, START_US), 3)
    assert await b.store.prefixes() == [BulkRevocation(APP, START_US)]


async def test_a_range_is_not_a_pattern(b: Bench) -> None:
    mine, other = await b.active(0, role_name="a_b"), await b.active(1, role_name="a-b")
    prefix, taken = await b.store.open_prefix(IdRange("aws/creds/a_b/", "aws/creds/a_b0"))
    assert taken == 1
    assert await b.store.mark_range_revoking(prefix, "", 100) == [mine.id]
    assert await b.row(other.id) == other


async def test_a_prefix_is_marked_in_batches(b: Bench) -> None:
    ids = sorted([(await b.active(number)).id for number in range(5)])
    prefix, accepted = await b.store.open_prefix(APP)
    assert accepted == 5
    steps = [await b.store.mark_range_revoking(prefix, "", 2)]
    while steps[-1]:
        steps.append(await b.store.mark_range_revoking(prefix, steps[-1][-1], 2))
    assert [len(step) for step in steps] == [2, 2, 1, 0]
    assert [lease_id for step in steps for lease_id in step] == ids
    for lease_id in ids:
        row = await b.row(lease_id)
        assert (row.state, row.due_us) == (State.REVOKING, START_US)


async def test_a_lease_in_back_off_is_marked_too(b: Bench) -> None:
    """Its attempts are kept, and its error is removed."""
    claim = await b.taken()
    await lease_steps.reschedule(b.store, claim, "no", timedelta(minutes=15), 7, 1)
    b.clock.advance(1)
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.mark_range_revoking(prefix, "", 9) == [claim.id]
    row = await b.row(claim.id)
    assert (row.due_us, row.attempts, row.not_found_count, row.last_error) == (START_US + SECOND, 7, 1, "")
    assert len(await b.store.claim([claim.id], TERMS)) == 1


async def test_an_overdue_lease_keeps_its_due_time(b: Bench) -> None:
    lease = await b.active(ttl=timedelta(seconds=5))
    b.clock.advance(60)
    prefix, _ = await b.store.open_prefix(APP)
    await b.store.mark_range_revoking(prefix, "", 9)
    assert (await b.row(lease.id)).due_us == lease.expires_us


async def test_a_claimed_lease_keeps_its_claim(b: Bench) -> None:
    claim = await b.taken()
    await lease_steps.reschedule(b.store, claim, "no", timedelta(0), 1, 0)
    (again,) = await b.store.claim([claim.id], TERMS)
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.mark_range_revoking(prefix, "", 9) == [claim.id]
    assert await lease_steps.is_unchanged(b.store, again)
    row = await b.row(claim.id)
    assert (row.due_us, row.last_error) == (again.due_us, "")
    assert await lease_steps.finish(b.store, again)


async def test_tombstones_and_abandoned_leases_are_not_marked(b: Bench) -> None:
    gone = await b.taken(0)
    await lease_steps.finish(b.store, gone)
    left = await b.active(1)
    await b.store.abandon(APP, 9, live=True)
    prefix, taken = await b.store.open_prefix(APP)
    assert (taken, await b.store.mark_range_revoking(prefix, "", 9)) == (0, [])
    assert (await b.row(left.id)).state is State.ABANDONED


async def test_a_lease_begun_after_the_cutoff_is_not_marked(b: Bench) -> None:
    await b.active(0)
    prefix, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    later = await b.active(1)
    assert len(await b.store.mark_range_revoking(prefix, "", 100)) == 1
    assert await b.row(later.id) == later
    assert await lease_steps.renew(b.store, later, later.expires_us + SECOND) is not None


async def test_a_prefix_includes_leases_begun_before_the_clock_was_lowered(b: Bench) -> None:
    lease = await b.active()
    b.clock.wall -= 3600 * SECOND
    await b.store.lower_clock()
    b.clock.advance(1)
    prefix, taken = await b.store.open_prefix(APP)
    assert (taken, await b.store.mark_range_revoking(prefix, "", 9)) == (1, [lease.id])


async def test_leases_of_an_open_prefix_are_neither_renewed_nor_activated(b: Bench) -> None:
    active, claim = await b.active(0), await b.begun(1)
    other = await b.active(2, role_name="other")
    await b.store.open_prefix(APP)
    assert await lease_steps.renew(b.store, active, active.expires_us + SECOND) is None
    assert await lease_steps.replace_key(b.store, active, "AKIB") is None
    assert await lease_steps.activate(b.store, claim, "AKIA") is None
    assert await lease_steps.renew(b.store, other, other.expires_us + SECOND) is not None


async def test_marking_an_intent_voids_its_claim(b: Bench) -> None:
    claim = await b.begun()
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.mark_range_revoking(prefix, "", 9) == [claim.id]
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert not await lease_steps.abort(b.store, claim, "", 0)


async def test_closing_a_prefix_closes_no_other_of_the_same_range(b: Bench) -> None:
    first, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    second, _ = await b.store.open_prefix(APP)
    await b.store.close_prefix(first)
    assert await b.store.prefixes() == [second]
    await b.store.close_prefix(second)
    assert await b.store.prefixes() == []
    lease = await b.active()
    assert await lease_steps.renew(b.store, lease, lease.expires_us + SECOND) is not None


async def test_progress_counts_live_failed_and_gone_leases(b: Bench) -> None:
    """Failed and gone count since the cut-off."""
    for number in (5, 6):
        await lease_steps.finish(b.store, await b.taken(number))
    gone, failed, waiting = [await b.taken(number) for number in range(3)]
    await b.active(3)
    await lease_steps.reschedule(b.store, waiting, "an earlier no", timedelta(minutes=9), 1, 0)
    prefix, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    assert await b.store.progress(prefix) == Progress(4, 0, 0)
    await b.store.mark_range_revoking(prefix, "", 9)
    await b.store.close_prefix(prefix)
    assert await b.store.progress(prefix) == Progress(4, 0, 0)
    await lease_steps.finish(b.store, gone)
    await lease_steps.reschedule(b.store, failed, "no", timedelta(seconds=1), 1, 0)
    assert await b.store.progress(prefix) == Progress(3, 1, 1)
    await b.store.abandon(IdRange(waiting.id, f"{waiting.id}0"), 9, live=True)
    assert await b.store.progress(prefix) == Progress(2, 1, 1)


async def test_progress_is_the_same_for_pages_of_any_size(b: Bench) -> None:
    claims = [await b.taken(number) for number in range(5)]
    await b.active(5)
    prefix, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    await b.store.mark_range_revoking(prefix, "", 9)
    await b.store.close_prefix(prefix)
    for claim in claims[:2]:
        await lease_steps.finish(b.store, claim)
    await lease_steps.reschedule(b.store, claims[4], "no", timedelta(seconds=1), 1, 0)
    for rows in (1, 2, 5, 6, 100):
        b.store.count_page = rows
        assert await b.store.progress(prefix) == Progress(4, 1, 2)


async def test_no_lease_counts_as_failed_until_all_are_marked(b: Bench) -> None:
    """Until then an error may be an earlier one."""
    claim = await b.taken()
    await lease_steps.reschedule(b.store, claim, "no", timedelta(minutes=9), 1, 0)
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.progress(prefix) == Progress(1, 0, 0)


async def test_a_whole_lease_id_counts_as_one(b: Bench) -> None:
    lease = await b.active(0, ttl=timedelta(seconds=1))
    await b.active(1)
    one = IdRange(lease.id, f"{lease.id}0")
    assert [(c.role, c.state, c.count) for c in await b.store.count(one, None)] == [("app", State.ACTIVE, 1)]
    b.clock.advance(1)
    assert [c.count for c in await b.store.count(one, State.REVOKING)] == [1]
    assert await b.store.count(one, State.ACTIVE) == []


# --- abandoning ------------------------------------------------------------------------------------------


async def test_an_abandoned_lease_is_never_due_and_counts_against_no_limit(b: Bench) -> None:
    claim, active, taken = await b.begun(0), await b.active(1), await b.taken(2)
    gone = await b.taken(3)
    await lease_steps.finish(b.store, gone)
    some = await b.store.abandon(ALL, 2, live=True)
    rest = await b.store.abandon(ALL, 2, live=True)
    assert sorted([*some, *rest]) == sorted([claim.id, active.id, taken.id])
    assert await b.store.abandon(ALL, 2, live=True) == []
    assert {(await b.row(lease_id)).state for lease_id in (*some, *rest)} == {State.ABANDONED}
    assert (await b.row(gone.id)).state is State.GONE
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert not await lease_steps.finish(b.store, taken)
    b.clock.advance(10**6)
    assert await b.store.claim_due(TERMS, 9) == []
    await b.begun(9, max_users=1)


async def test_by_default_only_leases_in_revocation_are_abandoned(b: Bench) -> None:
    living, making, taken = await b.active(0), await b.begun(1), await b.taken(2)
    expired = await b.active(3, ttl=timedelta(seconds=1))
    b.clock.advance(1)
    assert sorted(await b.store.abandon(ALL, 9, live=False)) == sorted([taken.id, expired.id])
    assert await b.row(living.id) == living
    assert await lease_steps.is_unchanged(b.store, making)


async def test_revoking_an_abandoned_lease_makes_it_due(b: Bench) -> None:
    lease = await b.active()
    await b.store.abandon(ALL, 9, live=True)
    row = await b.store.revoke(lease.id)
    assert row is not None
    assert (row.state, row.due_us) == (State.REVOKING, START_US)
    assert len(await b.store.claim([lease.id], TERMS)) == 1
