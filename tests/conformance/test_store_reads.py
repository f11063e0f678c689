"""Checks the reads of leases that every kind of store has."""

from __future__ import annotations

from datetime import timedelta

from tests.support import lease_steps
from tests.support.stores import START_US, Bench

from lessor_server.domain import lease as steps
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.engine.store_types import LeaseCount

SECOND = 1_000_000


async def test_the_window_has_the_deadlines_of_its_span(b: Bench) -> None:
    ids = [(await b.active(number, ttl=timedelta(seconds=100 - number))).id for number in range(5)]
    await b.active(8, ttl=timedelta(seconds=500))
    tombstone = await b.taken(9)
    await lease_steps.finish(b.store, tombstone)
    found = await b.store.list_due_within(timedelta(seconds=100), 50)
    assert found == [(lease_id, START_US + (96 + n) * SECOND) for n, lease_id in enumerate(reversed(ids))]
    assert await b.store.list_due_within(timedelta(seconds=100), 2) == found[:2]
    b.clock.advance(96)
    assert await b.store.list_due_within(timedelta(seconds=4), 50) == found[1:]


async def test_a_page_begins_after_the_last_id(b: Bench) -> None:
    leases = [await b.active(number) for number in range(5)]
    other = await b.active(5, role_name="other")
    short = await b.active(6, ttl=timedelta(seconds=1))
    b.clock.advance(1)
    first = await b.store.page(EVERYTHING, None, "", 4)
    assert first == leases[:4]
    rest = await b.store.page(EVERYTHING, None, first[-1].id, 9)
    assert rest == [leases[4], short, other]
    assert await b.store.page(IdRange("aws/creds/other/", "aws/creds/other0"), None, "", 9) == [other]
    assert await b.store.page(EVERYTHING, State.REVOKING, "", 9) == [short]
    assert short not in await b.store.page(EVERYTHING, State.ACTIVE, "", 9)
    assert await b.store.page(EVERYTHING, State.GONE, "", 9) == []


async def test_counts_are_by_mount_role_and_state_as_callers_see_it(b: Bench) -> None:
    """An expired ACTIVE lease counts as REVOKING."""
    await b.active(0)
    await b.active(1, ttl=timedelta(seconds=1))
    await b.begun(2, role_name="other")
    await lease_steps.finish(b.store, await b.taken(3))
    b.clock.advance(1)
    counted = [
        LeaseCount("aws", "app", State.ACTIVE, 1),
        LeaseCount("aws", "app", State.GONE, 1),
        LeaseCount("aws", "app", State.REVOKING, 1),
        LeaseCount("aws", "other", State.INTENT, 1),
    ]
    assert await b.store.count(EVERYTHING, None) == counted
    assert await b.store.count(EVERYTHING, State.GONE) == counted[1:2]
    assert await b.store.count(IdRange("aws/creds/other/", "aws/creds/other0"), None) == counted[3:]


async def test_the_reason_of_a_lease_is_kept_to_its_end(b: Bench) -> None:
    lease = await b.active(0, reason="ticket 4711")
    assert lease.reason == "ticket 4711"
    assert (await b.active(1)).reason == ""
    ended = await b.taken(2, reason="two")
    await lease_steps.finish(b.store, ended)
    assert (await b.row(ended.id)).reason == "two"
    listed = await b.store.page(EVERYTHING, None, "", 9)
    assert [one.reason for one in listed] == ["ticket 4711", "", "two"]


async def test_the_numbers_for_metrics_leave_out_what_is_gone(b: Bench) -> None:
    """An expired lease counts as REVOKING, and has been due since its expiry."""
    await b.active(0)
    expired = await b.active(1, ttl=timedelta(seconds=1))
    await b.begun(2, role_name="other")
    await lease_steps.finish(b.store, await b.taken(3))
    b.clock.advance(5)
    found = await b.store.measure_leases()
    assert set(found.counts) == {
        LeaseCount("aws", "app", State.ACTIVE, 1),
        LeaseCount("aws", "app", State.REVOKING, 1),
        LeaseCount("aws", "other", State.INTENT, 1),
    }
    assert (found.mounts, found.stuck) == (("aws",), 0)
    assert found.oldest_due_us == expired.expires_us == b.store.now() - 4 * SECOND


async def test_a_lease_is_stuck_once_aws_has_refused_six_times(b: Bench) -> None:
    lease = await b.taken(0)
    for attempts in (5, 6):
        after = steps.reschedule(
            lease, "denied", timedelta(hours=1), b.store.now(), attempts=attempts, not_found_count=0
        )
        assert await b.store.write(lease, after)
        found = await b.store.measure_leases()
        assert (found.stuck, found.oldest_due_us) == (attempts - 5, 0)
        lease = after
