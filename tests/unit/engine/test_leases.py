"""Checks what callers do with leases: renew within bounds, be refused clearly, revoke, hear the truth."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import Invalid, LessorError, NotFound
from lessor_server.domain.errors.preconditions import (
    LeaseAbandoned,
    LeaseExpired,
    LeaseRevoking,
    NotRenewable,
)
from lessor_server.domain.events import Renewed, RevocationAsked
from lessor_server.domain.lease import State
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
async def test_a_renewed_key_lives_until_its_new_time() -> None:
    """A lease that is renewed again and again outlives its first expiry, and ends at the last one."""
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
    """Renewed just before its expiry, a lease is not revoked by the hint that was under way."""
    async with world() as w:
        made = await w.issue(ttl=60)
        await asyncio.sleep(59.999)
        await renew(w, made.lease.id, 600)
        await asyncio.sleep(590)
        assert (len(w.users()), w.states()[made.lease.id]) == (1, State.ACTIVE)


@virtual
async def test_no_increment_means_the_lease_s_own_ttl() -> None:
    """Without an increment a renewal gives the span that the lease was issued with."""
    async with world() as w:
        made = await w.issue(ttl=120)
        await asyncio.sleep(30)
        assert (await renew(w, made.lease.id)).ttl == timedelta(seconds=120)


@virtual
async def test_a_renewal_is_capped_by_the_longest_life_and_says_so() -> None:
    """Past the lease's longest life nothing is granted; the answer names what was cut."""
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
async def test_a_shorter_increment_shortens_and_says_so() -> None:
    """A renewal may end a lease earlier than before, with a warning, and then it ends earlier."""
    async with world() as w:
        made = await w.issue(ttl=3600)
        renewed = await renew(w, made.lease.id, 10)
        assert any("earlier" in warning for warning in renewed.warnings)
        await asyncio.sleep(10 + BOUND_SECONDS)
        assert w.users() == []


@virtual
async def test_a_lowered_max_holds_from_the_next_renewal_on() -> None:
    """Lowering a role's max shortens nothing by itself, and bounds the next renewal."""
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
async def test_a_lease_of_a_deleted_role_still_renews_by_the_mount() -> None:
    """A role that is gone leaves its leases renewable up to what the mount allows."""
    async with world() as w:
        made = await w.issue(ttl=60)
        await w.engine.roles.delete("aws", "app", "test")
        assert (await renew(w, made.lease.id, 600)).ttl == timedelta(seconds=600)


@pytest.mark.parametrize("seconds", [-1, 0.5])
@virtual
async def test_an_increment_that_is_no_span_is_invalid(seconds: float) -> None:
    """A negative or broken increment is refused, and changes nothing."""
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
    """Whatever is not ACTIVE is refused with the reason of its state, and stays as it is."""
    async with world() as w:
        made = await w.issue()
        in_state(w, made.lease.id, state)
        with pytest.raises(kind):
            await renew(w, made.lease.id)
        assert w.states()[made.lease.id] is state


@virtual
async def test_an_expired_lease_is_refused_before_anything_revoked_it() -> None:
    """Past its expiry a lease is LEASE_EXPIRED, though the timers have not come to it yet."""
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
    """An id that was never issued cannot be looked up or renewed."""
    async with world() as w:
        for call in (w.lease(UNKNOWN), renew(w, UNKNOWN)):
            with pytest.raises(NotFound):
                await call


@virtual
async def test_a_sync_revocation_answers_when_the_user_is_gone() -> None:
    """A caller who waits hears GONE once AWS has acknowledged; a second one hears ALREADY_GONE."""
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
async def test_an_async_revocation_answers_at_once_and_is_kept() -> None:
    """A caller who does not wait hears ACCEPTED when it is durable, and the key is cut within the bound."""
    async with world() as w:
        made = await w.issue()
        start = w.now()
        assert (await w.revoke(made.lease.id, sync=False)).outcome is Outcome.ACCEPTED
        assert w.now() == start
        await asyncio.sleep(BOUND_SECONDS)
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_revoking_what_never_was_is_unknown_and_no_error() -> None:
    """An id of the right shape that no lease has is answered UNKNOWN."""
    async with world() as w:
        assert (await w.revoke(UNKNOWN)).outcome is Outcome.UNKNOWN
        assert w.states() == {}


@virtual
async def test_a_sync_revocation_that_aws_refuses_says_why() -> None:
    """One failed attempt answers ACCEPTED with the error; the revocation goes on by itself."""
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1))
        told = await w.revoke(made.lease.id)
        assert told.outcome is Outcome.ACCEPTED
        assert "AccessDenied" in told.last_error
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_asking_again_hurries_a_revocation_that_waits() -> None:
    """A revocation that backs off for minutes is tried at once when somebody asks for it."""
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1, times=4))
        for _ in range(4):
            assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        start = w.now()
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.now() - start < 1


@virtual
async def test_an_abandoned_lease_is_taken_up_again_when_asked() -> None:
    """Revoking an abandoned lease revokes it."""
    async with world() as w:
        made = await w.issue()
        in_state(w, made.lease.id, State.ABANDONED)
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_leases_are_listed_and_counted_as_callers_see_them() -> None:
    """A lease past its expiry that nothing has touched yet is listed and counted as REVOKING."""
    async with world() as w:
        made = [await w.issue(ttl=60) for _ in range(2)]
        kept = await w.issue(ttl=3600)
        w.store.fail_writes = True
        await asyncio.sleep(61)
        leases = w.engine.leases
        for state, ids in ((State.REVOKING, [one.lease.id for one in made]), (State.ACTIVE, [kept.lease.id])):
            assert [one.id for one in await leases.page(EVERYTHING, state, "", 10)] == sorted(ids)
            assert [one.count for one in await leases.count(EVERYTHING, state)] == [len(ids)]
