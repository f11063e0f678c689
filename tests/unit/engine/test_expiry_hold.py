"""Checks when expiries are held: an untrusted clock, a clock jump, and an operator's hold."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.preconditions import ClockDisagrees
from lessor_server.domain.events import ExpiryHeld, ExpiryResumed, Revoked
from lessor_server.domain.lease import State
from lessor_server.engine.leases import Outcome
from lessor_server.engine.revocation.expiry_hold import ASKED, CLOCK_UNTRUSTED
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

SILENT = Fault(Kind.DROP, "GetServerTime")


async def restart(w: World) -> None:
    """End the process and start the next."""
    await w.kill()
    w.events.events.clear()
    w.events.times.clear()
    w.aws.sent.clear()
    await w.start()


def asked_time(w: World) -> int:
    """Return how often AWS was asked for its time."""
    return w.aws.actions().count("GetServerTime")


# --- the clock's witness at a start ----------------------------------------------------------------------


@virtual
async def test_the_clock_of_the_first_start_is_trusted() -> None:
    """An empty store has nothing that could expire."""
    async with world() as w:
        await w.issue(ttl=10)
        await w.until_gone(seconds=10 + BOUND_SECONDS)
        assert w.events.of(ExpiryHeld) == []
        assert asked_time(w) == 0


@virtual
async def test_a_later_start_holds_expiries_until_aws_confirms_the_clock() -> None:
    async with world() as w:
        await w.issue(ttl=100)
        await w.kill()
        await asyncio.sleep(200)
        await w.start()
        assert (w.engine.expiry.held, w.engine.expiry.why) == (True, CLOCK_UNTRUSTED)
        await w.events.until(ExpiryResumed, seconds=1)
        assert asked_time(w) == 1
        assert "DeleteAccessKey" not in w.aws.actions()
        await w.until_gone(seconds=BOUND_SECONDS)


@virtual
async def test_without_an_answer_of_aws_only_expiries_are_held() -> None:
    """AWS is asked every 5 s."""
    async with world() as w:
        due = await w.issue(ttl=100)
        w.aws.faults.add(SILENT)
        await restart(w)
        await asyncio.sleep(300)
        assert w.states()[due.lease.id] is State.ACTIVE
        assert 50 <= asked_time(w) <= 62
        other = await w.issue()
        await w.renew(other.lease.id, 7200)
        assert (await w.revoke(other.lease.id)).outcome is Outcome.GONE
        w.aws.faults.clear()
        await w.events.until(ExpiryResumed, seconds=6)
        await w.until_gone(seconds=BOUND_SECONDS)


@pytest.mark.parametrize(("ahead", "held"), [(-180, True), (-110, False), (110, False), (180, True)])
@virtual
async def test_a_difference_of_two_minutes_is_too_much(ahead: float, held: bool) -> None:
    async with world() as w:
        w.clocks.aws_ahead = ahead
        await w.issue(ttl=20)
        await restart(w)
        await asyncio.sleep(60)
        assert w.engine.expiry.held is held
        assert [event.why for event in w.events.of(ExpiryHeld)] == [CLOCK_UNTRUSTED]
        assert (len(w.users()), len(w.events.of(ExpiryResumed))) == ((1, 0) if held else (0, 1))


@virtual
async def test_a_corrected_clock_is_trusted_again() -> None:
    async with world() as w:
        await w.issue(ttl=20)
        w.clocks.aws_ahead = 600
        await restart(w)
        await asyncio.sleep(60)
        assert w.engine.expiry.held
        w.clocks.aws_ahead = 0
        await w.events.until(ExpiryResumed, seconds=6)
        await w.until_gone(seconds=BOUND_SECONDS)


@virtual
async def test_a_mount_without_a_root_does_not_prevent_the_clock_check() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("a-bare-one"), "test")
        await restart(w)
        await w.events.until(ExpiryResumed, seconds=6)


@virtual
async def test_the_answer_of_one_account_is_enough_to_check_the_clock() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("other"), "test")
        await w.set_root("other", builders.OTHER_ROOT_KEY)
        w.aws.faults.add(Fault(Kind.DROP, "GetServerTime", nth=1))
        await restart(w)
        await w.events.until(ExpiryResumed, seconds=2)
        assert asked_time(w) == 2


@virtual
async def test_without_any_root_expiries_are_held_until_one_is_set() -> None:
    async with world() as w:
        del w.store.roots["aws"]
        await restart(w)
        await asyncio.sleep(60)
        assert w.engine.expiry.why == CLOCK_UNTRUSTED
        await w.set_root()
        await w.events.until(ExpiryResumed, seconds=6)


# --- a jump ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-86_400.0, -61.0, 61.0, 86_400.0])
@virtual
async def test_a_jump_of_the_wall_clock_is_checked_with_aws(jump: float) -> None:
    async with world() as w:
        made = await w.issue(ttl=300)
        await asyncio.sleep(100)
        w.clocks.wall_ahead = jump
        await w.events.until(ExpiryHeld, seconds=31)
        await w.events.until(ExpiryResumed, seconds=1)
        assert asked_time(w) == 1
        assert w.states()[made.lease.id] is State.ACTIVE
        await w.until_gone(seconds=200 + BOUND_SECONDS)
        assert w.now() >= 300
        assert len(w.events.of(ExpiryHeld)) == 1


@virtual
async def test_after_a_jump_expiries_are_held_until_aws_answers() -> None:
    async with world() as w:
        made = await w.issue(ttl=100)
        w.aws.faults.add(SILENT)
        w.clocks.wall_ahead = 3600
        await asyncio.sleep(600)
        assert w.states()[made.lease.id] is State.ACTIVE
        w.aws.faults.clear()
        await w.events.until(ExpiryResumed, seconds=6)
        await w.until_gone(seconds=BOUND_SECONDS)


@virtual
async def test_a_slow_correction_of_the_clock_is_not_a_jump() -> None:
    async with world() as w:
        await w.issue()
        w.clocks.wall_ahead = 59
        await asyncio.sleep(300)
        assert asked_time(w) == 0


# --- a person's hold -------------------------------------------------------------------------------------


@virtual
async def test_a_hold_survives_restarts_until_expiry_is_resumed() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        await w.engine.expiry.hold(ASKED)
        await asyncio.sleep(300)
        assert w.states()[made.lease.id] is State.ACTIVE
        await restart(w)
        await asyncio.sleep(300)
        assert (w.engine.expiry.why, w.states()[made.lease.id]) == (ASKED, State.ACTIVE)
        await w.engine.expiry.resume(lower_clock=False)
        await w.events.until(Revoked, seconds=BOUND_SECONDS)
        await restart(w)
        await w.events.until(ExpiryResumed, seconds=1)
        assert w.engine.expiry.why == ""


@virtual
async def test_during_a_hold_a_missing_user_does_not_end_a_lease() -> None:
    """If the time is wrong, a late CreateUser may still take effect."""
    async with world() as w:
        made = await w.issue()
        await w.engine.expiry.hold(ASKED)
        w.iam.forget(w.users()[0])
        await w.revoke(made.lease.id, sync=False)
        await asyncio.sleep(86_400)
        assert w.states()[made.lease.id] is State.REVOKING
        await w.engine.expiry.resume(lower_clock=False)
        await w.until_gone()


@virtual
async def test_a_held_lease_reads_as_expired_and_is_not_renewed() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        await w.engine.expiry.hold(ASKED)
        await asyncio.sleep(61)
        lease = await w.lease(made.lease.id)
        assert lease.state_at(w.store.now()) is State.REVOKING
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE


@virtual
async def test_a_hold_that_cannot_be_stored_is_an_error() -> None:
    async with world() as w:
        await w.issue(ttl=10)
        w.store.fails.add("set_expiry_hold")
        with pytest.raises(Exception, match="cannot"):
            await w.engine.expiry.hold(ASKED)
        assert not w.engine.expiry.held
        await w.until_gone(seconds=10 + BOUND_SECONDS)


# --- lowering a clock that ran ahead ---------------------------------------------------------------------


async def a_day_ahead(w: World) -> str:
    """Start once with a wall clock a day ahead, which the store remembers; return a live lease's id."""
    made = await w.issue(ttl=3600)
    await w.kill()
    w.clocks.wall_ahead = 86_400
    await w.start()
    await w.kill()
    w.clocks.wall_ahead = 0
    await w.start()
    await asyncio.sleep(120)
    assert (w.engine.expiry.why, w.states()[made.lease.id]) == (CLOCK_UNTRUSTED, State.ACTIVE)
    return made.lease.id


@virtual
async def test_an_operator_can_lower_a_clock_that_ran_ahead() -> None:
    async with world() as w:
        lease_id = await a_day_ahead(w)
        await w.engine.expiry.resume(lower_clock=True)
        assert not w.engine.expiry.held
        assert abs(w.store.now() - w.clocks.wall_us()) < 1_000_000
        await asyncio.sleep(3000)
        assert w.states()[lease_id] is State.ACTIVE
        await w.until_gone(seconds=600)


@pytest.mark.parametrize("silent", [True, False])
@virtual
async def test_a_clock_that_aws_does_not_confirm_is_not_lowered(silent: bool) -> None:
    async with world() as w:
        await a_day_ahead(w)
        if silent:
            w.aws.faults.add(SILENT)
        else:
            w.clocks.wall_ahead = 7200
        before = w.store.now()
        with pytest.raises(ClockDisagrees):
            await w.engine.expiry.resume(lower_clock=True)
        assert w.store.now() - before < 60_000_000
        assert w.engine.expiry.held
