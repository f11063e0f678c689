"""Checks an outage of AWS: the account is paused and probed, and then all due leases are revoked."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from lessor_server.domain.errors.base import AwsUnavailable
from lessor_server.domain.events import AccountPaused, AccountResumed, RevocationFailed
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.engine import EngineConfig
from lessor_server.engine.leases import Outcome
from lessor_server.engine.revocation.worker import MAX_CONCURRENT
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

DAY = 86_400.0
ONE = "11111111-1111-4111-8111-111111111111"


async def outage(w: World, ttl: float = 10.0) -> str:
    """Begin an outage that a due lease meets; return the lease's id."""
    made = await w.issue(ttl=ttl)
    w.aws.away = True
    await w.events.until(AccountPaused, seconds=ttl + 60)
    return made.lease.id


@virtual
async def test_an_outage_counts_no_attempt() -> None:
    async with world() as w:
        lease_id = await outage(w)
        await asyncio.sleep(DAY)
        row = await w.lease(lease_id)
        assert (row.attempts, row.stuck) == (0, False)
        assert all(event.attempts == 0 for event in w.events.of(RevocationFailed))


@virtual
async def test_one_probe_at_a_time_is_sent_with_growing_delays() -> None:
    async with world() as w:
        for number in range(20):
            await w.issue(ttl=10 + number)
        w.aws.away = True
        await w.events.until(AccountPaused)
        await asyncio.sleep(60)
        w.aws.sent.clear()
        await asyncio.sleep(600)
        assert set(w.aws.actions()) == {"GetUser"}
        starts = [one.start for one in w.aws.sent]
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert all(15 <= gap <= 31 for gap in gaps)
        waits = [event.retry_in for event in w.events.of(AccountPaused)]
        for number, wait in enumerate(waits):
            most = min(2.0**number, 30.0)
            assert most / 2 <= wait <= most


@virtual
async def test_a_paused_account_refuses_issues_immediately() -> None:
    async with world() as w:
        await outage(w)
        await asyncio.sleep(1)
        before, start, sent = dict(w.states()), w.now(), len(w.aws.sent)
        with pytest.raises(AwsUnavailable) as raised:
            await w.issue()
        assert raised.value.retry_in
        assert (w.now(), w.states(), len(w.aws.sent)) == (start, before, sent)


@pytest.mark.parametrize("role", ["app", "assumed"])
@virtual
async def test_a_repeated_request_while_paused_is_unavailable(role: str) -> None:
    async with world() as w:
        await w.put_role(builders.assumed(w.iam.add_role("target").arn))
        made = await w.issue(role=role, ttl=900, request=ONE)
        await outage(w)
        await asyncio.sleep(1)
        start, sent = w.now(), len(w.aws.sent)
        with pytest.raises(AwsUnavailable) as raised:
            await w.issue(role=role, ttl=900, request=ONE)
        assert raised.value.retry_in
        assert (w.now(), len(w.aws.sent)) == (start, sent)
        assert await w.lease(made.lease.id) == made.lease


@pytest.mark.parametrize("role", ["app", "assumed"])
@virtual
async def test_a_new_mount_of_a_paused_account_issues_nothing(role: str) -> None:
    """STS may answer while IAM does not."""
    async with world() as w:
        await w.issue(ttl=10)
        for action in ("DeleteAccessKey", "GetUser"):
            w.aws.faults.add(Fault(Kind.ERROR_BEFORE, action))
        await w.events.until(AccountPaused, seconds=70)
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.set_root("second")
        await w.put_role(builders.role("app", "second"))
        await w.put_role(builders.assumed(w.iam.add_role("target").arn, mount="second"))
        before = dict(w.states())
        with pytest.raises(AwsUnavailable):
            await w.issue(role=role, mount="second")
        assert w.states() == before


@virtual
async def test_a_sync_revocation_does_not_wait_for_the_end_of_an_outage() -> None:
    async with world() as w:
        made = await w.issue()
        await outage(w)
        answer = await w.revoke(made.lease.id)
        assert answer.outcome is Outcome.ACCEPTED
        assert answer.last_error
        w.aws.away = False
        await w.until_gone(seconds=120)


@virtual
async def test_after_an_outage_overdue_leases_are_revoked_in_due_order() -> None:
    async with world() as w:
        users: list[str] = []
        for number in range(400):
            made = await w.issue(ttl=1000 - 2 * number)
            users.insert(0, made.lease.footprint.user_name)
        w.aws.away = True
        await asyncio.sleep(3000)
        w.aws.sent.clear()
        w.aws.away = False
        back = w.now()
        resumed = await w.events.until(AccountResumed)
        assert resumed.account == builders.ACCOUNT
        await w.until_gone(seconds=60)
        assert w.now() <= back + 45
        order = list(dict.fromkeys(one.user for one in w.aws.sent if one.action == "DeleteAccessKey"))
        assert sorted(order) == sorted(users)
        assert all(users.index(user) <= place + MAX_CONCURRENT for place, user in enumerate(order))


@virtual
async def test_after_an_outage_explicit_revocations_go_first() -> None:
    async with world(limits=EngineConfig(RateLimit(rate=50))) as w:
        for _ in range(100):
            await asyncio.sleep(0.1)
            await w.issue(ttl=60)
        asked = await w.issue()
        w.aws.away = True
        await asyncio.sleep(120)
        await w.revoke(asked.lease.id, sync=False)
        await asyncio.sleep(60)
        w.aws.sent.clear()
        w.aws.away = False
        await w.events.until(AccountResumed)
        await w.until_gone(seconds=60)
        cuts = [one.user for one in w.aws.sent if one.action == "DeleteAccessKey"]
        assert cuts.index(asked.lease.footprint.user_name) < 5


@virtual
async def test_an_explicit_revocation_goes_before_the_backlog() -> None:
    async with world(limits=EngineConfig(RateLimit(rate=20))) as w:
        for _ in range(100):
            await asyncio.sleep(0.2)
            await w.issue(ttl=60)
        asked = await w.issue()
        w.aws.away = True
        await asyncio.sleep(120)
        w.aws.away = False
        await w.events.until(AccountResumed)
        await asyncio.sleep(1)
        start = w.now()
        assert (await w.revoke(asked.lease.id)).outcome is Outcome.GONE
        assert w.now() - start <= 1.5
        assert len(w.users()) > 50
        await w.until_gone(seconds=60)


@virtual
async def test_an_outage_of_a_day_leaks_no_user() -> None:
    async with world(role=builders.role(max_ttl=None)) as w:
        short = [(await w.issue(ttl=60 * number)).lease.id for number in range(1, 30)]
        await outage(w, ttl=61)
        await asyncio.sleep(DAY)
        w.aws.away = False
        await w.until_gone(seconds=120)
        assert w.users() == []
        assert {w.states()[lease_id].name for lease_id in short} == {"GONE"}
        again = await w.issue(ttl=60)
        await asyncio.sleep(60 + BOUND_SECONDS)
        assert w.states()[again.lease.id].name == "GONE"


@virtual
async def test_a_refused_probe_ends_the_pause() -> None:
    async with world() as w:
        await outage(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "GetUser"))
        w.aws.away = False
        await w.events.until(AccountResumed, seconds=60)


@pytest.mark.parametrize("kind", [Kind.THROTTLE, Kind.ERROR_BEFORE, Kind.HANG, Kind.GARBAGE])
@virtual
async def test_a_probe_without_a_clear_answer_keeps_the_pause(kind: Kind) -> None:
    async with world() as w:
        await outage(w)
        w.aws.faults.add(Fault(kind, "GetUser"))
        w.aws.away = False
        await asyncio.sleep(300)
        assert w.events.of(AccountResumed) == []
        w.aws.faults.clear()
        await w.events.until(AccountResumed, seconds=60)
        await w.until_gone(seconds=60)


@virtual
async def test_one_account_s_outage_delays_no_other() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.set_root("second", builders.OTHER_ROOT_KEY)
        await w.put_role(builders.role(mount_name="second"))
        w.aws.faults.add(Fault(Kind.DROP, "DeleteAccessKey", user=""))
        first = await w.issue(ttl=5)
        await w.events.until(AccountPaused)
        w.aws.faults.clear()
        w.aws.faults.add(Fault(Kind.DROP, "GetUser"))
        second = await w.issue(ttl=30, mount="second")
        await asyncio.sleep(30 + BOUND_SECONDS)
        states = w.states()
        assert states[second.lease.id].name == "GONE"
        assert states[first.lease.id].name == "REVOKING"


@virtual
async def test_a_new_root_with_another_endpoint_ends_the_probing_of_the_old() -> None:
    async with world() as w:
        lease_id = await outage(w)
        w.aws.faults.add(Fault(Kind.DROP, "GetUser"))
        w.aws.away = False
        config = builders.root_config(iam_endpoint="https://iam.us-gov.amazonaws.com")
        await w.engine.mounts.set_root("aws", "", lambda _: config, "test")
        await w.until_gone(seconds=120)
        assert w.states()[lease_id].name == "GONE"
