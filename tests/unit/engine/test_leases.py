"""Checks renewals, revocations and reads of leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import Invalid, LessorError, NotFound, RowUnreadable
from lessor_server.domain.errors.preconditions import (
    LeaseAbandoned,
    LeaseExpired,
    LeaseRevoking,
    NotRenewable,
)
from lessor_server.domain.events import IssueFailed, Renewed, RevocationAsked
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import EVERYTHING, LeaseId
from lessor_server.engine.leases import Outcome, Renewal
from tests.support import builders
from tests.support.engine_world import BASE_US, BOUND_SECONDS, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

UNKNOWN = "aws/creds/app/" + "0" * 24


async def renew(w: World, lease_id: str, seconds: float | None = None) -> Renewal:
    """Renew a lease by ``seconds``, or by its own ttl."""
    increment = None if seconds is None else timedelta(seconds=seconds)
    return await w.engine.leases.renew(LeaseId.parse(lease_id), increment, "bob")


def in_state(w: World, lease_id: str, state: State) -> None:
    """Put a stored row into a state."""
    row = w.store.rows[lease_id]
    w.store.rows[lease_id] = replace(row, lease=replace(row.lease, state=state))


@virtual
async def test_a_renewed_key_lives_until_its_new_expiry() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        for _ in range(10):
            await asyncio.sleep(45)
            assert (await renew(w, made.lease.id, 60)).warnings == ()
        ends = w.now() + 60
        assert (await w.lease(made.lease.id)).expires_us == BASE_US + int(ends * 1e6)
        await asyncio.sleep(59.9)
        assert len(w.users()) == 1
        await asyncio.sleep(0.1 + BOUND_SECONDS)
        assert w.users() == []
        assert len(w.events.of(Renewed)) == 10


@virtual
async def test_a_renewal_at_the_last_moment_keeps_the_key() -> None:
    """The hint for the old expiry may already be in the queue."""
    async with world() as w:
        made = await w.issue(ttl=60)
        await asyncio.sleep(59.999)
        await renew(w, made.lease.id, 600)
        await asyncio.sleep(590)
        assert (len(w.users()), w.states()[made.lease.id]) == (1, State.ACTIVE)


@virtual
async def test_no_increment_means_the_lease_s_own_ttl() -> None:
    async with world() as w:
        made = await w.issue(ttl=120)
        await asyncio.sleep(30)
        assert (await renew(w, made.lease.id)).ttl == timedelta(seconds=120)


@virtual
async def test_a_renewal_is_capped_by_the_max_ttl_and_warns() -> None:
    async with world(role=builders.role(max_ttl=timedelta(minutes=10))) as w:
        made = await w.issue(ttl=60)
        await asyncio.sleep(50)
        renewed = await renew(w, made.lease.id, 3600)
        assert renewed.lease.expires_us == made.lease.issue_us + 600_000_000
        assert len(renewed.warnings) == 1
        assert "capped" in renewed.warnings[0]
        await asyncio.sleep(549)
        assert len(w.users()) == 1
        await asyncio.sleep(1 + BOUND_SECONDS)
        assert w.users() == []


@virtual
async def test_a_shorter_increment_shortens_the_lease_and_warns() -> None:
    async with world() as w:
        made = await w.issue(ttl=3600)
        renewed = await renew(w, made.lease.id, 10)
        assert any("earlier" in warning for warning in renewed.warnings)
        await asyncio.sleep(10 + BOUND_SECONDS)
        assert w.users() == []


@virtual
async def test_a_lowered_max_ttl_counts_from_the_next_renewal() -> None:
    async with world() as w:
        made = await w.issue(ttl=3600)
        await w.put_role(builders.role(max_ttl=timedelta(minutes=5)))
        await asyncio.sleep(400)
        assert len(w.users()) == 1
        renewed = await renew(w, made.lease.id, 3600)
        assert renewed.ttl == timedelta(seconds=1)
        assert renewed.warnings
        await asyncio.sleep(1 + BOUND_SECONDS)
        assert w.users() == []


@virtual
async def test_a_lease_of_a_deleted_role_is_renewed_by_the_mount_s_rules() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        await w.engine.roles.delete("aws", "app", "test")
        assert (await renew(w, made.lease.id, 600)).ttl == timedelta(seconds=600)


@pytest.mark.parametrize("seconds", [-1, 0.5])
@virtual
async def test_an_invalid_increment_is_refused(seconds: float) -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        with pytest.raises(Invalid):
            await renew(w, made.lease.id, seconds)
        assert (await w.lease(made.lease.id)).expires_us == made.lease.expires_us


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (State.INTENT, NotRenewable),
        (State.REVOKING, LeaseRevoking),
        (State.ABANDONED, LeaseAbandoned),
        (State.GONE, NotFound),
    ],
)
@virtual
async def test_a_lease_in_another_state_is_refused(state: State, kind: type[LessorError]) -> None:
    async with world() as w:
        made = await w.issue()
        in_state(w, made.lease.id, state)
        with pytest.raises(kind):
            await renew(w, made.lease.id)
        assert w.states()[made.lease.id] is state


@virtual
async def test_a_lease_that_has_ended_is_not_said_to_be_unknown() -> None:
    async with world() as w:
        made = await w.issue()
        in_state(w, made.lease.id, State.GONE)
        with pytest.raises(NotFound, match="has ended") as refused:
            await renew(w, made.lease.id)
        assert refused.value.fix == "issue new credentials"
        assert refused.value.reason == "NOT_FOUND"


@virtual
async def test_an_expired_lease_is_refused_before_it_is_revoked() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        await asyncio.sleep(60.1)
        if w.states()[made.lease.id] is State.ACTIVE:
            with pytest.raises(LeaseExpired):
                await renew(w, made.lease.id)
        else:
            pytest.fail("the lease was revoked in the second of its expiry: choose another instant")


@virtual
async def test_an_unknown_lease_is_not_found() -> None:
    async with world() as w:
        for call in (w.lease(UNKNOWN), renew(w, UNKNOWN)):
            with pytest.raises(NotFound):
                await call


@virtual
async def test_a_sync_revocation_returns_when_the_user_is_deleted() -> None:
    async with world() as w:
        made = await w.issue()
        start = w.now()
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []
        assert 0.15 <= w.now() - start < 0.2
        for sync in (True, False):
            assert (await w.revoke(made.lease.id, sync=sync)).outcome is Outcome.ALREADY_GONE
        assert [event.by for event in w.events.of(RevocationAsked)] == ["bob"]


@virtual
async def test_a_sync_revocation_of_a_row_with_a_bad_column_returns_its_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        made = await w.issue()
        get = w.store.get

        async def get_malformed(lease_id: str, *, salvage: bool = False) -> Lease | None:
            if not salvage:
                raise RowUnreadable("leases", lease_id, "max_ttl_us is a text")
            return await get(lease_id)

        monkeypatch.setattr(w.store, "get", get_malformed)
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_an_async_revocation_returns_when_it_is_durable() -> None:
    async with world() as w:
        made = await w.issue()
        start = w.now()
        assert (await w.revoke(made.lease.id, sync=False)).outcome is Outcome.ACCEPTED
        assert w.now() == start
        await asyncio.sleep(BOUND_SECONDS)
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_revoking_an_unknown_lease_is_not_an_error() -> None:
    async with world() as w:
        assert (await w.revoke(UNKNOWN)).outcome is Outcome.UNKNOWN
        assert w.states() == {}


@virtual
async def test_a_sync_revocation_that_aws_refuses_returns_the_error() -> None:
    """The answer is ACCEPTED, since the revocation is retried."""
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1))
        answer = await w.revoke(made.lease.id)
        assert answer.outcome is Outcome.ACCEPTED
        assert "AccessDenied" in answer.last_error
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_repeated_revocation_ends_the_back_off() -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1, times=4))
        for _ in range(4):
            assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        start = w.now()
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.now() - start < 1


@virtual
async def test_an_abandoned_lease_can_be_revoked() -> None:
    async with world() as w:
        made = await w.issue()
        in_state(w, made.lease.id, State.ABANDONED)
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_leases_are_listed_and_counted_as_callers_see_them() -> None:
    """An expired lease that is not yet revoked counts as REVOKING."""
    async with world() as w:
        made = [await w.issue(ttl=60) for _ in range(2)]
        kept = await w.issue(ttl=3600)
        w.store.fail_writes = True
        await asyncio.sleep(61)
        leases = w.engine.leases
        for state, ids in ((State.REVOKING, [one.lease.id for one in made]), (State.ACTIVE, [kept.lease.id])):
            assert [one.id for one in await leases.page(EVERYTHING, state, "", 10)] == sorted(ids)
            assert [one.count for one in await leases.count(EVERYTHING, state)] == [len(ids)]


@virtual
async def test_a_withdrawn_lease_is_revoked_once_the_store_works_again() -> None:
    """Its credential was not handed out, because its audit record could not be written."""
    async with world() as w:
        made = await w.issue()
        w.store.fails.add("revoke")
        task = asyncio.get_running_loop().create_task(w.engine.leases.withdraw(made.lease.id))
        await asyncio.sleep(3)
        assert not task.done()
        assert len(w.users()) == 1
        w.store.fails.clear()
        await task
        await asyncio.sleep(BOUND_SECONDS)
        assert w.users() == []
        assert [one.lease_id for one in w.events.of(IssueFailed)] == [made.lease.id]


@virtual
async def test_a_lease_that_is_gone_is_not_withdrawn() -> None:
    async with world() as w:
        await w.engine.leases.withdraw(UNKNOWN)
        assert w.events.of(IssueFailed) == []
