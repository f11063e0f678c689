"""Checks the rate of an account that several replicas share, with loads that come and go."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import cast

import pytest

from lessor_server.domain.rate_shares import SHARE_SECONDS, GrantedShare
from lessor_server.engine.aws.rate_limiter import Priority
from tests.support.replicas import ACCOUNT, RateUser, rate_users
from tests.support.slots import slot
from tests.support.virtual_loop import VirtualLoop, virtual

RATE = 300.0


def most_sent(users: list[RateUser]) -> int:
    """Return how many calls all replicas sent in the fullest second."""
    ordered = sorted(at for user in users for at in user.sent)
    return max((bisect_left(ordered, at + 1 - 1e-9) - index for index, at in enumerate(ordered)), default=0)


def sent_between(users: list[RateUser], begin: float, end: float) -> int:
    """Return how many calls all replicas sent in a span of seconds after the start."""
    return sum(begin <= at - user.began < end for user in users for at in user.sent)


@pytest.mark.parametrize("loaded", [1, 2, 3])
@virtual
async def test_three_replicas_use_at_least_95_percent_of_the_rate_and_never_more_than_it(loaded: int) -> None:
    """With the load on one, two or three of them."""
    async with rate_users(RATE, 3) as users:
        for user in users[:loaded]:
            user.load = 40
        await asyncio.sleep(40)
    assert most_sent(users) <= RATE
    assert sent_between(users, 20, 40) >= 0.95 * RATE * 20


@pytest.mark.parametrize("loaded", [1, 4, 8])
@virtual
async def test_eight_replicas_use_at_least_95_percent_of_the_rate_and_never_more_than_it(loaded: int) -> None:
    """Also if only one of them has load."""
    async with rate_users(RATE, 8) as users:
        for user in users[:loaded]:
            user.load = 40
        await asyncio.sleep(30)
    assert most_sent(users) <= RATE
    assert sent_between(users, 15, 30) >= 0.95 * RATE * 15


@pytest.mark.parametrize("loaded", [1, 2, 3])
@pytest.mark.parametrize("late", [0.002, 0.006])
@virtual
async def test_late_timers_lose_no_calls_and_cause_none_too_many(loaded: int, late: float) -> None:
    """As on a machine with too few cores: what was late does not move the schedule."""
    cast("VirtualLoop", asyncio.get_running_loop()).lateness = late
    async with rate_users(RATE, 3) as users:
        for user in users[:loaded]:
            user.load = 40
        await asyncio.sleep(40)
    assert most_sent(users) <= RATE
    assert sent_between(users, 20, 40) >= 0.95 * RATE * 20


@virtual
async def test_replicas_whose_loads_begin_together_all_send_within_four_seconds() -> None:
    """While another one uses the whole rate."""
    async with rate_users(RATE, 8) as users:
        users[0].load = 40
        await asyncio.sleep(20)
        for user in users[1:]:
            user.load = 5
        await asyncio.sleep(4)
        assert all(user.sent for user in users)
    assert most_sent(users) <= RATE


@virtual
async def test_an_explicit_revocation_waits_for_its_share_if_the_store_answers() -> None:
    """It is sent beside the shares only if there is none to be had."""
    async with rate_users(RATE, 2) as users:
        users[0].load = 40
        await asyncio.sleep(20)
        await users[1].send(Priority.ASKED, seconds=0.0)
        assert users[1].limiter.rate > 0
    assert most_sent(users) <= RATE


@virtual
async def test_the_rate_holds_while_the_load_moves_from_one_replica_to_another() -> None:
    async with rate_users(RATE, 3) as users:
        for step in range(12):
            for number, user in enumerate(users):
                user.load = 40 if number == step % 3 or (step % 4 == 3 and number) else 0
            await asyncio.sleep(4.7)
    assert most_sent(users) <= RATE
    assert sent_between(users, 10, 56) >= 0.3 * RATE * 46


@virtual
async def test_a_load_that_moves_has_the_rate_within_ten_seconds() -> None:
    async with rate_users(RATE, 3) as users:
        users[0].load = 40
        await asyncio.sleep(20)
        users[0].load, users[1].load = 0, 40
        await asyncio.sleep(20)
    assert sent_between(users, 30, 40) >= 0.95 * RATE * 10
    assert most_sent(users) <= RATE


@pytest.mark.parametrize("way", ["cut", "deaf", "hangs"])
@virtual
async def test_without_a_fresh_share_no_call_is_sent_but_those_of_explicit_revocations_one_a_second(
    way: str,
) -> None:
    """Whether its signs are lost, or only the answers to them, or the store does not answer at all."""
    async with rate_users(RATE, 2) as users:
        for user in users:
            user.load = 40
        await asyncio.sleep(20)
        setattr(users[0].store, way, True)
        await asyncio.sleep(SHARE_SECONDS + 0.01)
        del users[0].sent[:]
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(users[0].send(Priority.ASKED))
            await asyncio.sleep(9.5)
            assert 9 <= len(users[0].sent) <= 10
            assert most_sent(users[:1]) == 1
            setattr(users[0].store, way, False)
            await asyncio.sleep(8)
            assert len(users[0].sent) > 20
    assert most_sent(users) <= RATE


@virtual
async def test_the_share_of_a_replica_that_stops_goes_to_the_others() -> None:
    async with rate_users(RATE, 2) as users:
        for user in users:
            user.load = 40
        await asyncio.sleep(20)
        users[0].load, users[0].store.cut = 0, True
        await asyncio.sleep(14)
        assert 0.9 * RATE < users[1].limiter.rate < RATE
        await asyncio.sleep(10)
        assert users[1].limiter.rate == RATE - 6  # which another replica would find if it started now
    assert most_sent(users) <= RATE


@virtual
async def test_the_first_call_to_an_account_does_not_wait_for_the_next_sign() -> None:
    async with rate_users(RATE, 2) as users:
        await asyncio.sleep(7)
        began = asyncio.get_running_loop().time()
        await users[0].send(seconds=0.0)
        assert asyncio.get_running_loop().time() - began < 0.05


@virtual
async def test_a_sign_for_a_first_call_asks_for_no_other_account() -> None:
    """A replica that uses a thousand accounts would write all of their shares each time."""
    async with rate_users(RATE, 2) as users:
        users[0].load = 1
        await asyncio.sleep(7)
        async with slot(users[0].limiters.limiter("999999999999", "")):
            granted = users[0].registry.fleet.granted
        assert [share.account for share in granted] == ["999999999999"]
        await asyncio.sleep(1.2)
        assert {share.account for share in users[0].registry.fleet.granted} == {ACCOUNT, "999999999999"}


@virtual
async def test_calls_that_a_stopped_process_had_admitted_are_admitted_again() -> None:
    """Otherwise they would be sent beside those of the new second."""
    async with rate_users(10.0, 1) as users:
        await users[0].send(seconds=0.0)
        limiter, loop = users[0].limiter, asyncio.get_running_loop()
        for _ in range(9):
            await users[0].send(seconds=0.0)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(users[0].send(seconds=0.0))
            await asyncio.sleep(0.001)
            (_, _, future) = limiter._queue.pop()
            limiter._admit(loop.time())
            future.set_result(loop.time() - 5.0)  # as a task that a stop kept from running for 5 s
            await asyncio.sleep(0)
            assert not waiting.done()
    assert most_sent(users) <= 10


@virtual
async def test_an_idle_account_is_no_longer_asked_for() -> None:
    async with rate_users(RATE, 1) as users:
        await users[0].send()
        await asyncio.sleep(30)
        assert users[0].limiter.rate == RATE - 6
        await asyncio.sleep(60)
        assert users[0].limiter.rate == 0
        assert users[0].registry.fleet.granted == ()
        await users[0].send()
        assert users[0].limiter.rate == RATE - 6


@virtual
async def test_a_smaller_share_is_confirmed_only_after_a_second() -> None:
    """A sign that another account's first call causes may come earlier: AWS still counts the calls before."""
    async with rate_users(RATE, 1) as users:
        await users[0].send(seconds=0.0)
        shared = users[0].limiter.shared
        assert shared is not None
        shared.accept(GrantedShare(ACCOUNT, 100.0, 100.0, 0.0), int(asyncio.get_running_loop().time() * 1e6))
        assert (shared.share, shared.request(0).using) == (100.0, RATE - 6)
        await asyncio.sleep(1.1)
        assert shared.request(0).using == 100.0


@virtual
async def test_a_call_counts_from_when_its_task_continues() -> None:
    """On a busy loop that is later than its admission."""
    async with rate_users(4.0, 1) as users:
        await users[0].send(seconds=0.0)
        shared = users[0].limiter.shared
        assert shared is not None
        began = asyncio.get_running_loop().time()
        admitted = [began + number / 1e6 for number in range(1, 5)]
        for at in admitted:
            shared.admit(at)
        for at in admitted:
            shared.note_sent(at, began + 0.4)
        assert shared.wait_seconds(began + 1.4, explicit=False) > 0
        assert shared.wait_seconds(began + 1.5, explicit=False) <= 0
