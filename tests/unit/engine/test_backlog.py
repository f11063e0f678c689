"""Checks the order in which overdue leases are revoked, and that they delay no other account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lessor_server.domain.events import AccountPaused, AccountResumed, RevocationFailed, Revoked
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.aws.outage_probe import PROBE_USER
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.engine import EngineConfig
from lessor_server.engine.revocation.queue import ANY_ROOM_SECONDS, ROOM_SECONDS, RevocationQueue
from lessor_server.engine.revocation.worker import MAX_CONCURRENT
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

SLOW = EngineConfig(RateLimit(rate=60))
"""Twenty leases a second."""


async def second_mount(w: World) -> None:
    """Enable a mount on another account."""
    await w.engine.mounts.enable(builders.mount("second"), "test")
    await w.set_root("second", builders.OTHER_ROOT_KEY)
    await w.put_role(builders.role(mount_name="second"))
    await w.revoke((await w.issue(mount="second")).lease.id)


async def issued(w: World, count: int, *, until: float, apart: float = 0.0, mount: str = "aws") -> list[str]:
    """Issue leases that end at ``until`` of the loop's time and each ``apart`` later; return their users."""
    users = []
    for number in range(count):
        made = await w.issue(ttl=int(until - w.now() + number * apart), mount=mount)
        users.append(made.lease.footprint.user_name)
    return users


async def outage(w: World, *, until: float) -> None:
    """Let AWS be away from now to ``until``, and wait for all of it to be over."""
    w.aws.away = True
    await asyncio.sleep(until - w.now())
    w.aws.away = False
    w.aws.sent.clear()
    await w.events.until(AccountResumed, seconds=40)


def order(w: World) -> list[str]:
    """Return the users in the order of their first calls."""
    return list(dict.fromkeys(one.user for one in w.aws.sent if one.user and one.user != PROBE_USER))


@virtual
async def test_leases_that_fall_due_during_a_backlog_keep_due_order() -> None:
    async with world(limits=SLOW) as w:
        old = await issued(w, 600, until=2000)
        young = await issued(w, 100, until=3050, apart=0.1)
        await asyncio.sleep(1990 - w.now())
        await outage(w, until=3030)
        await w.until_gone(seconds=120)
        gone = order(w)
        assert sorted(gone) == sorted(old + young)
        first_young = min(gone.index(user) for user in young)
        assert first_young >= len(old) - 1, f"{len(old) - first_young} older ones were overtaken"


@virtual
async def test_a_backlog_of_one_account_does_not_delay_another() -> None:
    async with world(limits=SLOW) as w:
        await second_mount(w)
        await issued(w, 600, until=2000)
        (mine,) = await issued(w, 1, until=3050, mount="second")
        await asyncio.sleep(1990 - w.now())
        await outage(w, until=3030)
        await w.events.until(Revoked, where=lambda one: one.lease_id.startswith("second"), seconds=60)
        assert w.now() <= 3050 + BOUND_SECONDS + 1
        assert sum(state is not State.GONE for state in w.states().values()) > MAX_CONCURRENT
        assert mine in order(w)


@virtual
@pytest.mark.parametrize("ended", ["expired", "revoked"])
async def test_a_backlog_is_claimed_in_steps_and_not_lease_by_lease(
    monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    async with world(limits=SLOW) as w:
        await issued(w, 320, until=2000)
        claims: list[int] = []

        def counting(claim: Callable[..., Awaitable[list[Lease]]]) -> Callable[..., Awaitable[list[Lease]]]:
            async def counted(*args: object) -> list[Lease]:
                found = await claim(*args)
                claims.append(len(found))
                return found

            return counted

        for name in ("claim", "claim_due"):
            monkeypatch.setattr(w.store, name, counting(getattr(w.store, name)))
        if ended == "revoked":
            await w.engine.prefixes.accept(IdRange.of_mount("aws"), "test", "")
        else:
            await asyncio.sleep(2000 - w.now())
        await w.until_gone(seconds=120)
        assert sum(claims) == 320
        assert len([found for found in claims if found]) <= 320 / 8


@virtual
async def test_a_backlog_of_a_paused_account_does_not_delay_another() -> None:
    async with world(limits=SLOW) as w:
        await second_mount(w)
        silent = await issued(w, 300, until=2000)
        mine = await issued(w, 40, until=3001, apart=5, mount="second")
        for user in (*silent, PROBE_USER):
            w.aws.faults.add(Fault(Kind.DROP, "*", user=user))
        await w.events.until(AccountPaused, seconds=3000)
        await asyncio.sleep(3000 - w.now())
        for number in range(len(mine)):
            await asyncio.sleep(3001 + 5 * number + BOUND_SECONDS - w.now())
            gone = [one for one, state in w.states().items() if state is State.GONE and one[:6] == "second"]
            assert len(gone) == number + 2, f"the {number}-th is late"


@virtual
async def test_slow_answers_for_nearly_all_attempts_do_not_delay_another_account() -> None:
    """The few others are used, although there is never room for eight."""
    async with world(limits=EngineConfig(RateLimit(rate=1000, in_flight=500))) as w:
        await second_mount(w)
        slow = await issued(w, MAX_CONCURRENT - 4, until=2000)
        await issued(w, 100, until=2000, mount="second")
        for user in slow:
            w.aws.faults.add(Fault(Kind.DELAY, "*", user=user, seconds=6.5))
        await asyncio.sleep(2000 - w.now())
        await w.until(lambda: not w.other_iam.users, seconds=BOUND_SECONDS)
        assert len(w.users()) == len(slow)


@virtual
async def test_a_backlog_that_waited_for_room_takes_any_for_a_while() -> None:
    queue = RevocationQueue()
    queue.push_hints(f"aws/{number}" for number in range(100))
    assert queue.take_hints(4, ()) == []
    await asyncio.sleep(ROOM_SECONDS + 0.1)
    for _ in range(3):
        assert len(queue.take_hints(4, ())) == 4
    await asyncio.sleep(ANY_ROOM_SECONDS)
    assert queue.take_hints(4, ()) == []
    assert len(queue.take_hints(8, ())) == 8


@virtual
async def test_a_full_queue_is_not_taken_for_an_outage_of_aws() -> None:
    """The remaining leases wait, and no issue is refused."""
    async with world(limits=EngineConfig(RateLimit(rate=20, in_flight=1, queue=4))) as w:
        await issued(w, 20, until=2000)
        await asyncio.sleep(2000 - w.now())
        await w.until_gone()
        assert w.users() == []
        assert w.events.of(AccountPaused) == []
        assert w.events.of(RevocationFailed)
