"""Checks the steps of a lease that every kind of store has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import SPAN, START_US, TERMS, Bench, intent

from lessor_server.domain import lease as steps
from lessor_server.domain.errors.base import Aborted, LessorError, MountFull, NotFound, RoleFull
from lessor_server.domain.errors.preconditions import LeaseRevoking, MountDisabling, NotRenewable
from lessor_server.domain.lease import Footprint, Lease, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.domain.mount import MountState

SECOND = 1_000_000


# --- begin and activate ----------------------------------------------------------------------------------


async def test_an_intent_is_stored_with_all_fields_and_claimed(b: Bench) -> None:
    wanted = intent(7)
    claim = await b.store.begin(wanted, timedelta(seconds=90))
    row = await b.row(wanted.id)
    assert row == claim
    assert (row.footprint, row.ttl, row.owner, row.role) == (wanted.footprint, wanted.ttl, "root", "app")
    assert (row.state, row.generation, row.access_key_id) == (State.INTENT, 1, "")
    assert row.due_us == row.last_create_us == START_US + 90 * SECOND
    assert (row.created_us, row.issue_us, row.expires_us) == (START_US, 0, 0)
    assert await lease_steps.is_unchanged(b.store, claim)


async def test_ttl_and_max_ttl_count_from_the_activation(b: Bench) -> None:
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
async def test_an_intent_of_an_unknown_mount_or_another_root_is_refused(
    b: Bench, changes: dict[str, Any], kind: type[LessorError]
) -> None:
    with pytest.raises(kind):
        await b.begun(**changes)
    assert await b.store.count(EVERYTHING, None) == []


async def test_a_mount_that_is_being_disabled_refuses_an_intent(b: Bench) -> None:
    mount = builders.mount()
    assert await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    with pytest.raises(MountDisabling):
        await b.begun()


async def test_an_intent_with_a_used_lease_id_is_aborted(b: Bench) -> None:
    first = await b.active()
    with pytest.raises(Aborted) as again:
        await b.begun()
    assert again.value.retry_in is not None
    assert await b.row(first.id) == first


async def test_limits_count_live_rows_only(b: Bench) -> None:
    """INTENT, ACTIVE and REVOKING."""
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


async def test_concurrent_intents_do_not_exceed_a_limit(b: Bench) -> None:
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
    claim = await b.begun()
    assert await lease_steps.activate(b.store, claim, "AKIA") is not None
    assert await lease_steps.activate(b.store, claim, "AKIB") is None
    assert (await b.row(claim.id)).access_key_id == "AKIA"


async def test_an_intent_whose_claim_ended_can_be_claimed_by_another(b: Bench) -> None:
    claim = await b.begun()
    b.clock.advance(SPAN.total_seconds())
    (taken,) = await b.store.claim([claim.id], TERMS)
    assert taken.state is State.REVOKING
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert await lease_steps.activate(b.store, claim, "AKIA") is None
    assert not await lease_steps.abort(b.store, claim, "", 0)
    assert await lease_steps.is_unchanged(b.store, taken)


async def test_an_aborted_intent_is_due_immediately(b: Bench) -> None:
    claim = await b.begun()
    b.clock.advance(1)
    assert await lease_steps.abort(b.store, claim, "no", START_US)
    row = await b.row(claim.id)
    assert (row.state, row.last_error, row.last_create_us) == (State.REVOKING, "no", START_US)
    assert row.due_us == START_US + SECOND
    assert not await lease_steps.abort(b.store, claim, "again", 0)


# --- renew -----------------------------------------------------------------------------------------------


async def test_a_renewal_moves_expiry_and_deadline(b: Bench) -> None:
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


async def test_a_renewal_is_made_of_the_row_and_the_time(b: Bench) -> None:
    lease = await b.active()
    b.clock.advance(100)
    seen: list[tuple[Lease, int]] = []

    def renew(before: Lease, now: int) -> Lease:
        seen.append((before, now))
        return steps.renew(before, before.expires_us + 5, now)

    renewed = await b.store.renew(lease.id, renew)
    assert seen == [(lease, START_US + 100 * SECOND)]
    assert renewed == await b.row(lease.id) == steps.renew(lease, lease.expires_us + 5, seen[0][1])
    assert await b.store.renew(intent(9).id, renew) is None


async def test_a_renewal_that_is_refused_by_its_rules_writes_nothing(b: Bench) -> None:
    lease = await b.active()

    def refuse(_before: Lease, _now: int) -> Lease:
        raise NotRenewable("not today", subject=lease.id)

    with pytest.raises(NotRenewable, match="not today"):
        await b.store.renew(lease.id, refuse)
    assert await b.row(lease.id) == lease


async def test_a_lease_of_an_open_bulk_revocation_is_not_renewed(b: Bench) -> None:
    lease = await b.active()
    await b.store.open_prefix(IdRange.of_mount("aws"))
    with pytest.raises(LeaseRevoking):
        await b.store.renew(lease.id, lambda before, now: steps.renew(before, before.expires_us + 5, now))
    assert await b.row(lease.id) == lease


async def test_two_renewals_of_a_lease_at_the_same_time_are_both_written(b: Bench) -> None:
    lease = await b.active()
    both = await asyncio.gather(
        *(
            b.store.renew(lease.id, lambda before, now: steps.renew(before, before.expires_us + 5, now))
            for _ in range(2)
        )
    )
    assert sorted(one.expires_us for one in both if one) == [lease.expires_us + 5, lease.expires_us + 10]
    assert (await b.row(lease.id)).expires_us == lease.expires_us + 10


async def test_an_expired_lease_is_not_renewed(b: Bench) -> None:
    lease = await b.active(ttl=timedelta(seconds=60))
    b.clock.advance(60)
    assert await lease_steps.renew(b.store, lease, lease.expires_us + SECOND) is None
    assert await b.row(lease.id) == lease


async def test_a_renewed_lease_is_not_claimed_by_an_old_hint(b: Bench) -> None:
    lease = await b.active(ttl=timedelta(seconds=60))
    await lease_steps.renew(b.store, lease, lease.expires_us + 60 * SECOND)
    b.clock.advance(61)
    assert await b.store.claim([lease.id], TERMS) == []
    assert await b.store.claim_due(TERMS, 10) == []
    assert (await b.row(lease.id)).state is State.ACTIVE


# --- revoke, claim, fail, finish, reopen -----------------------------------------------------------------


async def test_a_revocation_voids_the_claim_of_an_intent(b: Bench) -> None:
    claim = await b.begun()
    row = await b.store.revoke(claim.id)
    assert row is not None
    assert (row.state, row.due_us) == (State.REVOKING, START_US)
    assert not await lease_steps.is_unchanged(b.store, claim)
    assert await lease_steps.activate(b.store, claim, "AKIA") is None


async def test_revoking_a_claimed_lease_changes_nothing(b: Bench) -> None:
    claim = await b.taken()
    assert await b.store.revoke(claim.id) == claim
    assert await lease_steps.is_unchanged(b.store, claim)
    await lease_steps.reschedule(b.store, claim, "no", timedelta(hours=1), 1, 0)
    row = await b.store.revoke(claim.id)
    assert row is not None
    assert (row.due_us, row.attempts) == (START_US, 1)


async def test_revoking_a_tombstone_or_an_unknown_id_changes_nothing(b: Bench) -> None:
    claim = await b.taken()
    assert await lease_steps.finish(b.store, claim)
    tombstone = await b.store.revoke(claim.id)
    assert tombstone is not None
    assert tombstone.state is State.GONE
    assert tombstone == await b.row(claim.id)
    assert await b.store.revoke("aws/creds/app/none") is None


async def test_only_due_and_unclaimed_leases_are_claimed(b: Bench) -> None:
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


async def test_due_leases_are_claimed_earliest_first(b: Bench) -> None:
    """Without the accounts that are left out."""
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


async def test_a_failed_attempt_releases_the_claim(b: Bench) -> None:
    claim = await b.taken()
    assert await lease_steps.reschedule(b.store, claim, "refused", timedelta(seconds=30), 3, 2)
    row = await b.row(claim.id)
    assert (row.state, row.last_error, row.attempts, row.not_found_count) == (State.REVOKING, "refused", 3, 2)
    assert row.due_us == START_US + 30 * SECOND
    assert not await lease_steps.reschedule(b.store, claim, "refused", timedelta(seconds=30), 4, 2)
    assert not await lease_steps.finish(b.store, claim)
    assert await b.store.claim([claim.id], TERMS) == []


async def test_without_a_delay_a_failed_lease_stays_due_at_its_expiry(b: Bench) -> None:
    expired, asked = await b.active(0, ttl=timedelta(seconds=10)), await b.active(1)
    b.clock.advance(20)
    await b.store.revoke(asked.id)
    for claim in await b.store.claim([expired.id, asked.id], TERMS):
        b.clock.advance(1)
        assert await lease_steps.reschedule(b.store, claim, "silence", timedelta(0), 0, 0)
    assert (await b.row(expired.id)).due_us == expired.expires_us
    assert (await b.row(asked.id)).due_us == START_US + 22 * SECOND


async def test_a_tombstone_is_never_due(b: Bench) -> None:
    claim = await b.taken()
    assert await lease_steps.finish(b.store, claim)
    b.clock.advance(10**6)
    assert await b.store.claim([claim.id], TERMS) == []
    assert await b.store.claim_due(TERMS, 9) == []
    assert (await b.row(claim.id)).last_error == ""


async def test_a_late_user_reopens_its_row(b: Bench) -> None:
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


async def test_reopen_finish_and_reschedule_do_not_change_an_active_lease(b: Bench) -> None:
    lease = await b.active()
    await b.store.reopen(lease.id, 1)
    assert not await lease_steps.finish(b.store, lease)
    assert not await lease_steps.reschedule(b.store, lease, "", timedelta(0), 0, 0)
    assert await b.row(lease.id) == lease


async def test_a_new_process_voids_every_claim(b: Bench) -> None:
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
