"""Checks the leases of sessions: they are forgotten, not revoked, and never renewed."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.base import Invalid, RequestIdReused
from lessor_server.domain.errors.preconditions import NotRenewable, RequestSpent
from lessor_server.domain.events import Forgotten, Revoked
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import CredentialType
from lessor_server.domain.root import Hop
from lessor_server.domain.secret import Secret
from lessor_server.engine.leases import Outcome, Revocation
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

ONE = "11111111-1111-4111-8111-111111111111"
SERIAL = "arn:aws:iam::123456789012:mfa/root"
WEEK = 7 * 24 * 3600.0


async def assumed(w: World, **changes: object) -> None:
    """Write a role that assumes an IAM role of the account."""
    await bound(w)
    await w.put_role(builders.assumed(w.iam.add_role("target", longest=43_200).arn, **changes))


async def federated(w: World) -> str:
    """Write a role of the type FEDERATION_TOKEN and return its name."""
    role = builders.role("federated", credential_type=CredentialType.FEDERATION_TOKEN)
    await w.put_role(role)
    return role.name


@pytest.mark.parametrize("sync", [True, False])
@virtual
async def test_a_revoked_session_is_forgotten_and_then_already_gone(sync: bool) -> None:
    """The answer names the time until which AWS accepts the session."""
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=900)
        w.aws.sent.clear()
        answer = await w.revoke(made.lease.id, sync=sync)
        assert answer == Revocation(Outcome.FORGOTTEN, works_until_us=made.lease.expires_us)
        assert (await w.lease(made.lease.id)).state is State.GONE
        assert (await w.revoke(made.lease.id, sync=sync)).outcome is Outcome.ALREADY_GONE
        assert w.aws.sent == []
        assert w.events.of(Revoked)[-1] == Forgotten(made.lease.id, made.lease.expires_us, owner="alice")


@virtual
async def test_a_session_is_forgotten_during_an_outage() -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed")
        w.aws.away = True
        assert (await w.revoke(made.lease.id)).outcome is Outcome.FORGOTTEN


@virtual
async def test_a_session_is_never_renewed() -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed")
        with pytest.raises(NotRenewable):
            await w.renew(made.lease.id, 3600)


@virtual
async def test_a_prefix_includes_sessions() -> None:
    async with world() as w:
        await assumed(w)
        await w.issue(role="assumed")
        await w.issue()
        w.points.slow["mark_range_revoking"] = (
            0.001  # a session takes no time to end, and counts once time has passed
        )
        prefix, accepted = await w.engine.prefixes.accept(IdRange("aws/", "aws0"), "bob")
        standings = [standing async for standing in w.engine.prefixes.follow(prefix, accepted)]
        assert (accepted, standings[-1].done) == (2, 2)


@virtual
async def test_a_session_is_not_abandoned() -> None:
    """It has no revocation that could be abandoned."""
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=900)
        ids = IdRange(made.lease.id, f"{made.lease.id}0")
        assert await w.engine.prefixes.abandon(ids, "bob", live=True) == 0
        await asyncio.sleep(910)
        assert (await w.lease(made.lease.id)).state is State.GONE


@virtual
async def test_a_repeat_gets_another_session_under_the_same_lease() -> None:
    """It lives as long as the lease still does."""
    async with world() as w:
        await assumed(w)
        first = await w.issue(role="assumed", ttl=3600, request=ONE)
        await asyncio.sleep(1000.4)
        again = await w.issue(role="assumed", ttl=3600, request=ONE)
        assert again.lease.id == first.lease.id
        assert again.lease.expires_us == first.lease.expires_us
        assert again.lease.access_key_id != first.lease.access_key_id
        ends = w.iam.sts.sessions[again.lease.access_key_id].ends * 1e6
        assert first.lease.expires_us - 2e6 < ends <= first.lease.expires_us
        assert len(w.iam.sts.sessions) == 2


@virtual
async def test_a_cancelled_repeat_keeps_the_old_session() -> None:
    async with world() as w:
        await assumed(w)
        first = await w.issue(role="assumed", request=ONE)
        w.aws.sent.clear()
        for seen in ((), ("AssumeRole",)):
            task = asyncio.get_running_loop().create_task(w.issue(role="assumed", request=ONE))
            await w.until(lambda seen=seen: not seen or seen[0] in w.aws.actions())
            task.cancel()
            await asyncio.sleep(BOUND_SECONDS)
            assert (await w.lease(first.lease.id)) == first.lease
        assert w.aws.actions() == ["AssumeRole"]


@virtual
async def test_a_repeat_with_too_little_time_left_is_spent() -> None:
    """AWS issues no session of less than 900 s."""
    async with world() as w:
        await assumed(w)
        await w.issue(role="assumed", ttl=1000, request=ONE)
        await asyncio.sleep(90)
        await w.issue(role="assumed", ttl=1000, request=ONE)
        await asyncio.sleep(20)
        with pytest.raises(RequestSpent):
            await w.issue(role="assumed", ttl=1000, request=ONE)


@virtual
async def test_concurrent_repeats_share_one_session() -> None:
    async with world() as w:
        await assumed(w)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(w.issue(role="assumed", request=ONE)) for _ in range(12)]
        assert len({task.result().lease.access_key_id for task in tasks}) == 1
        assert w.aws.actions().count("AssumeRole") == 1
        with pytest.raises(RequestIdReused):
            await w.issue(role="assumed", ttl=901, request=ONE)


@virtual
async def test_an_undelivered_session_waits_a_minute_for_a_repeat() -> None:
    async with world() as w:
        await assumed(w)
        task = asyncio.get_running_loop().create_task(w.issue(role="assumed", request=ONE))
        await w.until(lambda: "AssumeRole" in w.aws.actions())
        task.cancel()
        await asyncio.sleep(1)
        (waiting,) = (row.lease for row in w.store.rows.values() if row.lease.is_session)
        assert (waiting.state, waiting.undelivered) == (State.ACTIVE, True)
        assert waiting.expires_us - w.store.now() <= 60_000_000
        made = await w.issue(role="assumed", request=ONE)
        assert (made.lease.id, made.lease.expires_us) == (waiting.id, waiting.max_expires_us)


@virtual
async def test_an_undelivered_session_ends_after_a_minute() -> None:
    async with world() as w:
        await assumed(w)
        task = asyncio.get_running_loop().create_task(w.issue(role="assumed", request=ONE))
        await w.until(lambda: "AssumeRole" in w.aws.actions())
        task.cancel()
        await asyncio.sleep(63)
        with pytest.raises(RequestSpent):
            await w.issue(role="assumed", request=ONE)


@virtual
async def test_a_repeat_sends_its_own_mfa_code() -> None:
    async with world() as w:
        await assumed(w, mfa_serial_number=SERIAL)
        for code in ("111111", "222222"):
            w.iam.sts.mfa_codes[SERIAL] = code
            await w.issue(role="assumed", request=ONE, options=SessionOptions(mfa_code=Secret(code)))
        assert len(w.iam.sts.sessions) == 2


@virtual
async def test_a_repeat_obeys_the_current_role() -> None:
    async with world() as w:
        await bound(w)
        allowed, forbidden = (w.iam.add_role(name, longest=43_200).arn for name in ("allowed", "forbidden"))
        await w.put_role(builders.assumed(allowed, role_arns=(allowed, forbidden)))
        await w.issue(role="assumed", request=ONE, options=SessionOptions(role_arn=forbidden))
        await w.put_role(builders.assumed(allowed))
        w.aws.sent.clear()
        with pytest.raises(Invalid) as raised:
            await w.issue(role="assumed", request=ONE, options=SessionOptions(role_arn=forbidden))
        assert [one.field for one in raised.value.violations] == ["role_arn"]
        assert "AssumeRole" not in w.aws.actions()


@virtual
async def test_a_repeat_after_the_role_type_changed_is_spent() -> None:
    async with world() as w:
        await assumed(w)
        await w.issue(role="assumed", request=ONE)
        await w.put_role(builders.role("assumed"))
        with pytest.raises(RequestSpent):
            await w.issue(role="assumed", request=ONE)
        assert w.users() == []


@virtual
async def test_a_repeat_after_the_root_s_account_changed_is_spent() -> None:
    async with world() as w:
        role = await federated(w)
        await w.issue(role=role, request=ONE)
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        w.aws.sent.clear()
        with pytest.raises(RequestSpent):
            await w.issue(role=role, request=ONE)
        assert "GetFederationToken" not in w.aws.actions()


@virtual
async def test_a_repeat_is_capped_by_the_current_root() -> None:
    """A chain gives sessions of at most an hour, and AWS refuses longer ones."""
    async with world() as w:
        await assumed(w)
        first = await w.issue(role="assumed", ttl=4 * 3600, request=ONE)
        chain = (Hop(w.iam.add_role("hub").arn),)
        config = builders.root_config(assume_chain=chain)
        await w.engine.mounts.set_root("aws", "", lambda _: config, "test")
        again = await w.issue(role="assumed", ttl=4 * 3600, request=ONE)
        assert again.lease.id == first.lease.id
        assert w.iam.sts.sessions[again.lease.access_key_id].ends <= w.store.now() / 1e6 + 3600


@virtual
async def test_a_refused_repeat_leaves_the_lease_unchanged() -> None:
    async with world() as w:
        await assumed(w)
        first = await w.issue(role="assumed", request=ONE)
        w.aws.faults.add(Fault(Kind.REFUSE, "AssumeRole", nth=1))
        with pytest.raises(Exception, match="AssumeRole"):
            await w.issue(role="assumed", request=ONE)
        assert (await w.lease(first.lease.id)).state is State.ACTIVE


@virtual
async def test_a_reconcile_run_ignores_sessions() -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=7200)
        await asyncio.sleep(3700)
        assert [found async for found in w.engine.reconciler.reconcile("aws", apply=True)] == []
        assert (await w.lease(made.lease.id)).state is State.ACTIVE


@virtual
async def test_tombstones_of_sessions_are_dropped_by_age_alone() -> None:
    """Also when the account cannot be listed."""
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=900)
        await w.revoke(made.lease.id)
        w.aws.away = True
        w.clocks.asleep += WEEK - 7200  # hours that nobody has to live through
        await asyncio.sleep(3600)
        assert made.lease.id in w.store.rows
        await asyncio.sleep(2 * 3600 + 900)
        assert made.lease.id not in w.store.rows
