"""A lease is renewed first and issued again last, also while the server is away; at the end it is revoked."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest
from tests.support.lease_world import (
    AWAY,
    BUSY,
    DENIED,
    HOUR,
    LOST,
    MINUTE,
    SECOND,
    START,
    LeaseWorld,
    MemoryServer,
)
from tests.support.virtual_loop import virtual

from lessor.errors import Error, Precondition, Unavailable
from lessor.leasing.issued import InvalidCredentials, Issued, Order
from lessor.leasing.refreshed import Plan, RefreshedLease
from lessor.refresh import SDK_LEFT, Term

ENDPOINT = Plan(Order("aws", "app"), SDK_LEFT)
ENVIRONMENT = Plan(Order("aws", "app"), reissues=False)


@virtual
async def test_a_key_of_an_hour_is_renewed_every_40_minutes_and_never_replaced() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    await world.run_for(10 * HOUR)
    assert world.server.names()[0] == "issue"
    renewals = [at for name, at in world.server.calls if name == "renew"]
    assert len(renewals) == world.server.names().count("renew") == len(world.server.calls) - 1
    assert all(abs(at - number * 40 * MINUTE) < MINUTE for number, at in enumerate(renewals, 1))
    assert len(world.server.issued) == 1
    assert world.reports == []


@virtual
async def test_at_the_maximum_the_endpoint_gets_one_new_key() -> None:
    world = LeaseWorld(MemoryServer(longest=2 * HOUR), ENDPOINT)
    await world.run_for(3 * HOUR)
    assert len(world.server.issued) == 2
    [second] = [at for name, at in world.server.calls[1:] if name == "issue"]
    assert 2 * HOUR - 21 * MINUTE <= second <= 2 * HOUR - SDK_LEFT


@virtual
async def test_what_the_endpoint_serves_is_always_valid_for_15_minutes() -> None:
    """Otherwise botocore asks at each request."""
    world = LeaseWorld(MemoryServer(ttl=30 * MINUTE, longest=100 * MINUTE), ENDPOINT)
    await world.lease.issue_first()
    async with asyncio.TaskGroup() as group:
        refreshing = group.create_task(world.lease.run())
        for _ in range(4 * 60):
            await asyncio.sleep(60)
            assert world.lease.current is not None
            assert world.lease.current.term.left(world.server.clock.now()) >= 15 * MINUTE
        refreshing.cancel()


@virtual
async def test_a_session_is_replaced_and_never_renewed() -> None:
    world = LeaseWorld(MemoryServer(is_session=True), ENDPOINT)
    await world.run_for(90 * MINUTE)
    assert world.server.names() == ["issue"] * 3


@virtual
async def test_keys_in_the_environment_are_renewed_and_their_end_is_announced_5_minutes_before() -> None:
    world = LeaseWorld(MemoryServer(longest=2 * HOUR), ENVIRONMENT)
    await world.run_for(2 * HOUR - 6 * MINUTE)
    assert world.reports == []
    world = LeaseWorld(MemoryServer(longest=2 * HOUR), ENVIRONMENT)
    await world.run_for(3 * HOUR)
    assert len(world.server.issued) == 1
    warning, ended = world.reports
    assert "end in 300s" in warning
    assert "--endpoint" in warning
    assert "have ended (lease aws/creds/app/0)" in ended


@virtual
async def test_a_server_that_is_away_is_asked_again_and_reported_once() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    await world.lease.issue_first()
    async with asyncio.TaskGroup() as group:
        refreshing = group.create_task(world.lease.run())
        await asyncio.sleep(39 * 60)
        world.server.down = True
        await asyncio.sleep(6 * 60)
        assert len(world.reports) == 1
        assert "can't be renewed now" in world.reports[0]
        world.server.down = False
        await asyncio.sleep(60)
        refreshing.cancel()
    assert len(world.server.issued) == 1
    assert world.lease.current is not None
    assert world.lease.current.term.left(world.server.clock.now()) > 58 * MINUTE
    tries = [at for name, at in world.server.calls if name == "renew"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(pauses) <= 31 * SECOND
    assert len(tries) < 40


@virtual
async def test_after_an_outage_longer_than_its_life_a_key_is_replaced() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    await world.lease.issue_first()
    async with asyncio.TaskGroup() as group:
        refreshing = group.create_task(world.lease.run())
        world.server.down = True
        await asyncio.sleep(3 * 3600)
        world.server.down = False
        await asyncio.sleep(60)
        refreshing.cancel()
    assert len(world.server.issued) == 2
    assert len(set(world.server.request_ids[1:])) == 1, "a lost answer must not create a second user"


@virtual
async def test_a_revoked_lease_is_replaced_at_its_next_renewal() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    world.server.failures = [None, LOST]
    await world.run_for(HOUR)
    assert world.server.names() == ["issue", "renew", "issue"]
    assert world.server.calls[2][1] - world.server.calls[1][1] < SECOND


@virtual
async def test_without_the_permission_to_renew_the_credentials_are_replaced_late() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    world.server.ttl = 3 * HOUR
    world.server.failures = [None, DENIED]
    await world.run_for(3 * HOUR)
    assert [name for name, _ in world.server.calls] == ["issue", "renew", "issue"]
    assert 3 * HOUR - 21 * MINUTE <= world.server.calls[2][1] <= 3 * HOUR - SDK_LEFT


@virtual
async def test_the_first_issue_waits_for_a_busy_server_but_not_for_one_that_is_away() -> None:
    world = LeaseWorld()
    world.server.failures = [BUSY, BUSY]
    await world.lease.issue_first()
    assert [at for _, at in world.server.calls] == [timedelta(), 2 * SECOND, 4 * SECOND]
    assert len(set(world.server.request_ids)) == 1
    world = LeaseWorld()
    world.server.failures = [AWAY]
    with pytest.raises(Unavailable):
        await world.lease.issue_first()
    world.server.failures = [BUSY] * 4
    with pytest.raises(Unavailable):
        await world.lease.issue_first()


@virtual
async def test_a_spent_request_id_is_replaced() -> None:
    world = LeaseWorld()
    spent = Precondition("spent", reason_name="REQUEST_ID_SPENT")
    world.server.failures = [BUSY, spent]
    await world.lease.issue_first()
    first, again, new = world.server.request_ids
    assert first == again != new


@virtual
async def test_an_agent_waits_for_a_server_that_is_away_but_not_for_a_refusal() -> None:
    world = LeaseWorld()
    world.server.failures = [AWAY] * 6
    await world.lease.issue_when_reachable()
    assert len(world.server.calls) == 7
    assert len(world.reports) == 1
    world = LeaseWorld()
    world.server.failures = [LOST]
    with pytest.raises(Error):
        await world.lease.issue_when_reachable()


@virtual
async def test_a_code_of_an_mfa_device_is_used_once() -> None:
    plan = Plan(Order("aws", "app", fields={"mfa_code": "123456"}), SDK_LEFT)
    world = LeaseWorld(MemoryServer(is_session=True), plan)
    await world.run_for(2 * HOUR)
    assert world.server.names() == ["issue"]
    assert len(world.reports) == 2


@virtual
async def test_a_revocation_is_retried_for_30_seconds_and_then_reported_with_the_lease() -> None:
    world = LeaseWorld()
    await world.lease.issue_first()
    world.server.down = True
    before = world.server.clock.now()
    await world.lease.revoke_all()
    took = world.server.clock.now() - before
    assert 10 * SECOND <= took <= 30 * SECOND
    assert world.server.names().count("revoke") >= 4
    [line] = world.reports
    assert "aws/creds/app/0 was not revoked" in line
    assert "lessor lease revoke aws/creds/app/0" in line
    assert world.lease.leases


@virtual
async def test_a_revocation_succeeds_as_soon_as_the_server_is_back() -> None:
    world = LeaseWorld()
    await world.lease.issue_first()
    world.server.failures = [AWAY, AWAY]
    await world.lease.revoke_all()
    assert world.server.revoked == ["aws/creds/app/0"]
    assert world.reports == []
    assert not world.lease.leases


@virtual
async def test_a_user_who_interrupts_ends_the_retries_of_a_revocation() -> None:
    world = LeaseWorld()
    await world.lease.issue_first()
    world.server.down = True
    before = world.server.clock.now()
    async with asyncio.TaskGroup() as group:
        group.create_task(world.lease.revoke_all())
        await asyncio.sleep(1)
        world.lease.hurried = True
    assert world.server.clock.now() - before < 4 * SECOND
    assert len(world.reports) == 1


@virtual
async def test_a_lease_that_does_not_exist_is_not_reported_as_left() -> None:
    world = LeaseWorld()
    world.server.failures = [None, LOST]
    await world.lease.issue_first()
    await world.lease.revoke_all()
    assert world.reports == []
    assert not world.lease.leases


@virtual
async def test_all_leases_that_have_not_ended_are_revoked() -> None:
    world = LeaseWorld(MemoryServer(is_session=True), ENDPOINT)
    await world.run_for(85 * MINUTE)
    assert len(world.server.issued) == 3
    await world.lease.revoke_all()
    assert sorted(world.server.revoked) == ["aws/creds/app/1", "aws/creds/app/2"]


@virtual
async def test_cancellation_ends_the_refreshing() -> None:
    world = LeaseWorld(plan=ENDPOINT)
    await world.lease.issue_first()
    task = asyncio.get_running_loop().create_task(world.lease.run())
    await asyncio.sleep(3600)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls = len(world.server.calls)
    await asyncio.sleep(7200)
    assert len(world.server.calls) == calls


@virtual
async def test_each_change_is_announced() -> None:
    world = LeaseWorld()
    seen: list[list[str]] = []
    lease = RefreshedLease(ENDPOINT, world.tools, lambda one: seen.append(list(one.leases)))
    await lease.issue_first()
    await lease.revoke_all()
    assert seen == [["aws/creds/app/0"], []]


def test_no_secret_is_in_the_repr() -> None:
    issued = Issued("a/creds/b/c", "AKIA1", "very-secret", "token-secret", Term(START, START, HOUR, True))
    assert "secret" not in repr(issued).replace("secret_key", "")
    order = Order("aws", "app", fields={"mfa_code": "123456"})
    assert "123456" not in repr(order)


@pytest.mark.parametrize("secret", ["a\nb", "a b", "a\x1b[0m", "ä"])
def test_credentials_with_control_characters_are_refused(secret: str) -> None:
    with pytest.raises(InvalidCredentials) as refused:
        Issued("a/creds/b/c", "AKIA1", secret, "", Term(START, START, HOUR, True))
    assert secret not in str(refused.value)
