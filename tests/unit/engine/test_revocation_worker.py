"""Checks that every lease is revoked in the end: expired, refused, not found, or overdue."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from lessor_server.domain.errors.base import AwsUnavailable
from lessor_server.domain.events import RevocationFailed, Revoked, Stuck
from lessor_server.domain.lease import State
from lessor_server.engine.revocation.worker import MAX_CONCURRENT
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, OTHER_ACCOUNT, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.plain_keyring import PlainKeyring
from tests.support.virtual_loop import virtual

DENIED = Fault(Kind.REFUSE, "DeleteUser")


@pytest.mark.parametrize("ttl", [1.0, 7.0, 60.0, 3600.0, 12 * 3600.0])
@virtual
async def test_a_lease_ends_within_the_bound_and_never_early(ttl: float) -> None:
    """At most three seconds after its expiry."""
    async with world() as w:
        made = await w.issue(ttl=ttl)
        ends = w.now() + ttl
        await w.events.until(Revoked, seconds=ttl + 60)
        (cut,) = [one for one in w.aws.sent if one.action == "DeleteAccessKey"]
        assert cut.end is not None
        assert ends <= cut.start
        assert cut.end <= ends + BOUND_SECONDS
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_many_leases_with_one_expiry_end_within_the_bound() -> None:
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(w.issue(ttl=60))
        ends = w.now() + 60
        await w.until_gone()
        cuts = [one for one in w.aws.sent if one.action == "DeleteAccessKey"]
        assert len(cuts) == 200
        assert max(one.end or 0 for one in cuts) <= ends + BOUND_SECONDS
        assert w.aws.actions().count("DeleteUser") == 200


@virtual
async def test_a_refused_revocation_is_retried_for_ever_with_back_off() -> None:
    async with world() as w:
        made = await w.issue(ttl=10)
        w.aws.faults.add(DENIED)
        await asyncio.sleep(86_400)
        failed = w.events.of(RevocationFailed)
        assert len(failed) >= 96
        assert [event.attempts for event in failed] == list(range(1, len(failed) + 1))
        for event in failed:
            assert 1.0 <= event.retry_in <= min(10.0 * 2 ** (event.attempts - 1), 900.0)
        assert max(event.retry_in for event in failed) > 600
        row = await w.lease(made.lease.id)
        assert (row.attempts, row.state, row.stuck) == (len(failed), State.REVOKING, True)
        w.aws.faults.clear()
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_after_six_refusals_a_lease_is_reported_once_as_stuck() -> None:
    async with world() as w:
        made = await w.issue(ttl=10)
        w.aws.faults.add(DENIED)
        await w.events.until(RevocationFailed, count=5)
        assert not (await w.lease(made.lease.id)).stuck
        stuck = await w.events.until(Stuck)
        assert (stuck.lease_id, stuck.attempts) == (made.lease.id, 6)
        await asyncio.sleep(7200)
        assert len(w.events.of(Stuck)) == 1


@virtual
async def test_attempts_are_durable() -> None:
    async with world() as w:
        made = await w.issue(ttl=10)
        w.aws.faults.add(DENIED)
        await w.events.until(RevocationFailed, count=4)
        await w.kill()
        await w.start()
        event = await w.events.until(RevocationFailed, count=5)
        assert event.attempts == 5
        assert (await w.lease(made.lease.id)).attempts == 5


async def unseen(w: World) -> str:
    """Give a REVOKING row whose CreateUser may still take effect, and return its id."""
    w.aws.faults.add(Fault(Kind.DROP, "CreateUser"))
    await w.attempt()
    w.aws.faults.clear()
    (lease_id,) = w.states()
    return lease_id


@virtual
async def test_a_missing_user_is_checked_after_1_5_20_60_300_and_900_seconds() -> None:
    """A user whose creation is unclear is believed gone after 15 min."""
    async with world() as w:
        lease_id = await unseen(w)
        created = w.now()
        await w.until_gone()
        looks = [one.start for one in w.aws.sent if one.action == "DeleteUser"]
        gaps = [later - earlier for earlier, later in pairwise(looks)]
        assert len(gaps) >= 6
        for gap, wanted in zip(gaps, (1, 5, 20, 60, 300, 900), strict=False):
            assert wanted <= gap <= wanted + 1.5
        assert looks[-1] >= created + 900
        assert w.states()[lease_id] is State.GONE


@virtual
async def test_a_user_created_14_minutes_late_is_still_found() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(Kind.DELAY, "CreateUser", seconds=14 * 60))
        assert isinstance(await w.attempt(), AwsUnavailable)
        w.aws.faults.clear()
        await asyncio.sleep(14 * 60)
        assert len(w.users()) == 1
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_user_that_was_never_created_is_gone_at_the_second_check() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateUser", nth=1))
        await w.attempt()
        await w.until_gone(seconds=10)
        assert w.aws.actions().count("DeleteUser") == 2


@virtual
async def test_a_user_that_somebody_else_deleted_needs_a_second_check() -> None:
    async with world() as w:
        made = await w.issue()
        w.iam.forget(w.users()[0])
        await asyncio.sleep(1000)
        await w.revoke(made.lease.id, sync=False)
        await w.until_gone(seconds=1300)
        assert w.aws.actions().count("DeleteUser") >= 2


@virtual
async def test_a_row_is_not_revoked_with_the_root_of_another_account() -> None:
    """NoSuchEntity of the other account would end the lease."""
    async with world() as w:
        made = await w.issue(ttl=60)
        stored = w.store.roots["aws"]
        plain = PlainKeyring().open(stored.sealed, "roots/aws", str(stored.version))
        other = plain.replace(builders.ROOT_KEY.encode(), builders.OTHER_ROOT_KEY.encode())
        sealed = PlainKeyring().seal(other, "roots/aws", str(stored.version + 1))
        w.store.roots["aws"] = type(stored)("aws", sealed, f"aws:{OTHER_ACCOUNT}", stored.version + 1, "y")
        w.aws.sent.clear()
        event = await w.events.until(RevocationFailed)
        assert "another account" in event.error
        assert (w.aws.sent, len(w.users())) == ([], 1)
        w.store.roots["aws"] = stored
        await w.until_gone()
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_a_due_row_without_a_hint_is_found_by_the_full_scan() -> None:
    """Within 30 s, also while the worker is busy with hints."""
    async with world() as w:
        await w.issue(ttl=1)
        claim = await w.store.begin(
            builders.intent(1, root_version=w.store.roots["aws"].version), timedelta(seconds=5)
        )
        for number in range(40):
            await w.issue(ttl=1 + number % 3)
            await asyncio.sleep(2)
        assert w.store.rows[claim.id].lease.not_found_count > 0, "due for a minute, and nobody looked"


@virtual
async def test_a_lease_that_fell_due_during_a_store_error_ends_within_seconds_after_it() -> None:
    async with world() as w:
        await w.issue(ttl=30)
        w.store.fail_writes = True
        await asyncio.sleep(600)
        assert len(w.users()) == 1
        w.store.fail_writes = False
        await w.until_gone(seconds=5)
        assert w.users() == []


@pytest.mark.parametrize("method", ["finish", "reschedule", "claim", "claim_due", "abort_intent", "get_root"])
@virtual
async def test_a_store_error_at_any_step_loses_nothing(method: str) -> None:
    async with world() as w:
        await w.issue(ttl=20)
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey", nth=1))
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1, times=2))
        w.store.fails.add(method)
        await w.attempt()
        await asyncio.sleep(300)
        w.store.fails.clear()
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_start_revokes_overdue_leases_in_due_order() -> None:
    async with world() as w:
        users: list[str] = []
        for number in range(400):
            made = await w.issue(ttl=1000 - 2 * number)
            users.insert(0, made.lease.footprint.user_name)
        await w.kill()
        w.aws.sent.clear()
        await asyncio.sleep(3600)
        await w.start()
        await w.until_gone(seconds=60)
        assert w.users() == []
        order = list(dict.fromkeys(one.user for one in w.aws.sent if one.user))
        assert sorted(order) == sorted(users)
        assert all(users.index(user) <= place + MAX_CONCURRENT for place, user in enumerate(order))
