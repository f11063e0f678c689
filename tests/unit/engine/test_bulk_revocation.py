"""Checks the revocation of all leases below a prefix."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.base import ErrorKind, LeaseTaken
from lessor_server.domain.errors.preconditions import LeaseAbandoned, LeaseRevoking
from lessor_server.domain.events import Abandoned, AccountResumed, PrefixAccepted, RevocationFailed
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.engine import EngineConfig
from lessor_server.engine.leases import Outcome
from lessor_server.engine.revocation.bulk import AT_A_TIME, Standing
from lessor_server.engine.store_types import BulkRevocation
from tests.support import builders, lease_steps
from tests.support.engine_world import BOUND_SECONDS, World, bound, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as FaultKind
from tests.support.virtual_loop import virtual


async def accept(w: World, text: str) -> tuple[BulkRevocation, int]:
    """Revoke a prefix as a caller does who does not wait."""
    prefix = IdRange.parse(text)
    return await w.engine.prefixes.accept(IdRange(prefix.low, prefix.high), "bob")


async def follow(w: World, text: str) -> list[Standing]:
    """Revoke a prefix and return how far it had come at each change."""
    prefix, accepted = await accept(w, text)
    return [standing async for standing in w.engine.prefixes.follow(prefix, accepted)]


async def abandon(w: World, text: str, *, live: bool = False) -> int:
    """Abandon a prefix, its ``live`` leases too."""
    prefix = IdRange.parse(text)
    return await w.engine.prefixes.abandon(IdRange(prefix.low, prefix.high), "bob", live=live)


async def issued(w: World, count: int, role: str = "app") -> list[str]:
    """Issue so many leases in parallel and return their ids."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(w.issue(role=role)) for _ in range(count)]
    return [task.result().lease.id for task in tasks]


@virtual
async def test_a_prefix_is_accepted_by_one_commit_that_survives_a_kill() -> None:
    async with world() as w:
        await issued(w, 300)
        w.points.passed.clear()
        _, taken = await accept(w, "aws/creds/app/")
        writes = [name for name in w.points.passed if name.endswith(" done")]
        assert (taken, writes) == (300, ["open_prefix done"])
        assert set(w.states().values()) == {State.ACTIVE}
        await w.kill()
        await w.start()
        await w.until_gone(seconds=60)
        assert w.users() == []
        assert w.store.open == []
        assert w.events.of(PrefixAccepted)[0].taken == 300


@virtual
async def test_a_prefix_is_not_a_pattern() -> None:
    async with world() as w:
        roles = ("a_b", "a-b", "a.b", "a_bc")
        for role in roles:
            await w.put_role(builders.role(role))
            await w.issue(role=role)
        await follow(w, "aws/creds/a_b/")
        states = {lease_id.split("/")[2]: state for lease_id, state in w.states().items()}
        assert states == {role: State.GONE if role == "a_b" else State.ACTIVE for role in roles}


@virtual
async def test_a_lease_begun_after_the_cutoff_is_not_revoked() -> None:
    async with world() as w:
        old = await issued(w, 100)
        await accept(w, "aws/")
        await asyncio.sleep(0.001)
        new = (await w.issue()).lease.id
        await w.until(lambda: all(w.states()[lease_id] is State.GONE for lease_id in old))
        assert w.states()[new] is State.ACTIVE
        await w.renew(new, 7200)
        assert len(w.users()) == 1


@pytest.mark.parametrize("after", [0.01, 0.04, 0.06, 0.09])
@virtual
async def test_an_intent_below_a_revoked_prefix_is_aborted(after: float) -> None:
    async with world() as w:
        await bound(w)
        caller = asyncio.get_running_loop().create_task(w.attempt())
        await asyncio.sleep(after)
        await follow(w, "aws/")
        error = await caller
        assert isinstance(error, LeaseTaken)
        assert error.kind is ErrorKind.ABORTED
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_lease_of_an_open_prefix_is_not_renewed() -> None:
    async with world() as w:
        (lease_id,) = await issued(w, 1)
        w.store.fails.add("mark_range_revoking")
        await accept(w, "aws/")
        await asyncio.sleep(5)
        assert w.states()[lease_id] is State.ACTIVE
        with pytest.raises(LeaseRevoking):
            await w.renew(lease_id, 7200)
        w.store.fails.clear()
        await w.until_gone(seconds=10)


@virtual
async def test_an_intent_of_an_open_prefix_does_not_become_active() -> None:
    async with world() as w:
        await bound(w)
        w.store.fails.add("mark_range_revoking")
        caller = asyncio.get_running_loop().create_task(w.attempt())
        await asyncio.sleep(0.08)
        await accept(w, "aws/")
        assert isinstance(await caller, LeaseTaken)
        w.store.fails.clear()
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_one_lease_that_fails_stops_no_other() -> None:
    async with world() as w:
        ids = await issued(w, 20)
        stubborn = w.store.rows[ids[7]].lease.footprint.user_name
        w.aws.faults.add(Fault(FaultKind.REFUSE, "DeleteUser", user=stubborn))
        last = (await follow(w, "aws/"))[-1]
        assert last == Standing(accepted=20, done=19, failed=1, left=0)
        assert w.users() == [stubborn]
        assert {event.lease_id for event in w.events.of(RevocationFailed)} == {ids[7]}
        w.aws.faults.clear()
        await w.until_gone()


@virtual
async def test_a_lease_in_back_off_is_tried_again_and_its_earlier_error_does_not_count() -> None:
    async with world() as w:
        ids = await issued(w, 3)
        w.aws.faults.add(Fault(FaultKind.REFUSE, "DeleteUser"))
        for lease_id in ids:
            await w.revoke(lease_id, sync=False)
        await asyncio.sleep(3600)
        before = {lease_id: w.store.rows[lease_id].lease.attempts for lease_id in ids}
        w.aws.faults.clear()
        stubborn = w.store.rows[ids[1]].lease.footprint.user_name
        w.aws.faults.add(Fault(FaultKind.REFUSE, "DeleteUser", user=stubborn))
        asked = w.now()
        assert (await follow(w, "aws/"))[-1] == Standing(accepted=3, done=2, failed=1, left=0)
        assert w.now() - asked < BOUND_SECONDS
        assert w.store.rows[ids[1]].lease.attempts == before[ids[1]] + 1
        w.aws.faults.clear()
        await w.until_gone(seconds=1000)


@virtual
async def test_an_abandoned_lease_counts_as_neither_done_nor_failed() -> None:
    async with world() as w:
        given_up, other = await issued(w, 2)
        w.store.fails.add("mark_range_revoking")
        prefix, accepted = await accept(w, "aws/")
        await abandon(w, given_up, live=True)
        w.store.fails.clear()
        answer = [standing async for standing in w.engine.prefixes.follow(prefix, accepted)]
        assert answer[-1] == Standing(accepted=2, done=1, failed=0, left=0)
        assert w.states() == {given_up: State.ABANDONED, other: State.GONE}


@virtual
async def test_a_prefix_goes_before_expiries() -> None:
    async with world(limits=EngineConfig(RateLimit(rate=100))) as w:
        await w.put_role(builders.role("urgent"))
        mine = await issued(w, 20, role="urgent")
        for _ in range(6):
            await issued(w, 100)
        w.aws.away = True
        await asyncio.sleep(2 * 3600)
        w.aws.away = False
        await w.events.until(AccountResumed, seconds=60)
        asked = w.now()
        await follow(w, "aws/creds/urgent/")
        assert w.now() - asked < 10
        assert sum(state is State.REVOKING for state in w.states().values()) > 300
        await w.until_gone(seconds=120)
        assert all(w.states()[lease_id] is State.GONE for lease_id in mine)


@virtual
async def test_progress_never_decreases() -> None:
    async with world() as w:
        await issued(w, 500)
        standings = await follow(w, "aws/creds/")
        done = [standing.done for standing in standings]
        assert len(done) > 2
        assert done == sorted(set(done))
        assert standings[-1] == Standing(accepted=500, done=500, failed=0, left=0)
        assert all(standing.done + standing.left == 500 for standing in standings)


@virtual
async def test_a_prefix_without_leases_is_done_immediately() -> None:
    async with world() as w:
        assert await follow(w, "aws/creds/none/") == []
        await w.until(lambda: not w.store.open)


@virtual
async def test_a_large_prefix_is_marked_in_several_commits() -> None:
    """So that an intent does not wait for all of them."""
    async with world() as w:
        await bound(w)
        for number in range(2 * AT_A_TIME + 1):
            await lease_steps.activate(
                w.store, await w.store.begin(builders.intent(number), builders.HOUR), "AKIA"
            )
        w.points.passed.clear()
        w.aws.away = True
        await accept(w, "aws/")
        await w.until(lambda: not w.store.open)
        assert w.points.passed.count("put_up done") == 4
        assert len(w.store.rows) == 2 * AT_A_TIME + 2
        assert all(row.lease.state in (State.REVOKING, State.GONE) for row in w.store.rows.values())


@virtual
async def test_a_small_prefix_does_not_wait_for_a_large_one() -> None:
    async with world() as w:
        await bound(w)
        for number in range(5 * AT_A_TIME):
            await lease_steps.activate(
                w.store, await w.store.begin(builders.intent(number), builders.HOUR), "AKIA"
            )
        await w.put_role(builders.role("small"))
        small = await w.issue(role="small")
        w.points.passed.clear()
        w.points.slow["mark_range_revoking"] = 0.1
        await accept(w, "aws/creds/app/")
        await w.until(lambda: "mark_range_revoking" in w.points.passed)
        await accept(w, "aws/creds/small/")
        await w.until(lambda: w.states()[small.lease.id] is not State.ACTIVE)
        assert w.points.passed.count("put_up done") <= 3
        await w.until(lambda: not w.store.open)
        assert State.ACTIVE not in w.states().values()


@virtual
async def test_a_store_error_delays_a_prefix_and_loses_nothing() -> None:
    async with world() as w:
        await issued(w, 5)
        await accept(w, "aws/")
        w.store.fail_writes = True
        await asyncio.sleep(120)
        w.store.fail_writes = False
        await w.until_gone(seconds=60)
        assert w.store.open == []


# --- abandoning ------------------------------------------------------------------------------------------


@virtual
async def test_an_abandoned_lease_is_not_tried_until_it_is_revoked() -> None:
    async with world() as w:
        (lease_id, other) = await issued(w, 2)
        w.aws.faults.add(Fault(FaultKind.REFUSE, "DeleteUser"))
        await w.revoke(lease_id)
        assert await abandon(w, lease_id) == 1
        w.aws.sent.clear()
        await asyncio.sleep(3000)
        assert w.aws.actions(w.store.rows[lease_id].lease.footprint.user_name) == []
        assert w.states() == {lease_id: State.ABANDONED, other: State.ACTIVE}
        with pytest.raises(LeaseAbandoned):
            await w.renew(lease_id, 60)
        w.aws.faults.clear()
        assert (await w.revoke(lease_id)).outcome is Outcome.GONE
        assert [event.leases for event in w.events.of(Abandoned)] == [1]


@virtual
async def test_a_claim_on_an_abandoned_lease_is_void() -> None:
    async with world() as w:
        (lease_id,) = await issued(w, 1)
        await w.revoke(lease_id, sync=False)
        await asyncio.sleep(0.06)
        await abandon(w, "aws/")
        await asyncio.sleep(60)
        assert w.states() == {lease_id: State.ABANDONED}
