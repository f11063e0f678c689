"""Checks how many calls and streams one identity may have, and how often it may call."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from lessor_server.domain.access.caller import ROOT
from lessor_server.domain.errors.access import RateLimited, TooManyWatches
from lessor_server.domain.errors.base import TooManyCalls
from lessor_server.services.call_limits import CallLimiter, IdentityLimits
from tests.support.access import principal
from tests.support.virtual_loop import virtual

ALICE, BOB = principal("alice"), principal("bob")


def test_the_calls_of_one_identity_are_bounded_and_others_are_not_affected() -> None:
    limits = CallLimiter(IdentityLimits(calls=10, calls_per_identity=2))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(limits.counted(ALICE, lasting=False))
        with pytest.raises(TooManyCalls) as caught:
            stack.enter_context(limits.counted(ALICE, lasting=False))
        assert (caught.value.subject, caught.value.retry_in) == ("identity/alice", 1.0)
        stack.enter_context(limits.counted(BOB, lasting=False))
    with limits.counted(ALICE, lasting=False):
        pass


def test_the_calls_of_the_process_are_bounded() -> None:
    limits = CallLimiter(IdentityLimits(calls=2, calls_per_identity=2))
    with limits.counted(ALICE, lasting=False), limits.counted(BOB, lasting=False):
        with pytest.raises(TooManyCalls, match="the server has reached its maximum of calls in progress, 2"):
            limits.counted(ROOT, lasting=False).__enter__()
        with limits.counted(ROOT, lasting=True):
            pass


def test_unbounded_streams_are_counted_by_themselves() -> None:
    limits = CallLimiter(IdentityLimits(calls=1, calls_per_identity=1, watches_per_identity=2))
    with limits.counted(ALICE, lasting=True), limits.counted(ALICE, lasting=True):
        with limits.counted(ALICE, lasting=False):
            pass
        with pytest.raises(TooManyWatches):
            limits.counted(ALICE, lasting=True).__enter__()
        with limits.counted(BOB, lasting=True):
            pass


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 5.0, 300.0])
@virtual
async def test_an_identity_has_a_burst_of_two_seconds_and_then_its_rate(rate: float) -> None:
    limits = CallLimiter(IdentityLimits(rate=rate))

    def calls() -> int:
        count = 0
        while True:
            try:
                limits.take_turn(ALICE)
            except RateLimited:
                return count
            count += 1

    assert calls() == max(int(2 * rate), 1)
    await asyncio.sleep(10 / rate + 1e-6)
    assert calls() == min(max(int(2 * rate), 1), 10)
    for _ in range(5):
        await asyncio.sleep(1 / rate + 1e-6)
        assert calls() == 1
    limits.take_turn(BOB)


@virtual
async def test_the_wait_that_an_error_names_is_enough() -> None:
    limits = CallLimiter(IdentityLimits(rate=3.0))
    for _ in range(50):
        try:
            limits.take_turn(ALICE)
        except RateLimited as error:
            await asyncio.sleep(error.retry_in or 0)
            limits.take_turn(ALICE)


@virtual
async def test_the_root_token_has_no_rate() -> None:
    limits = CallLimiter(IdentityLimits(rate=1.0))
    for _ in range(100):
        limits.take_turn(ROOT)


@virtual
async def test_silent_identities_are_forgotten() -> None:
    limits = CallLimiter(IdentityLimits(rate=1.0))
    for number in range(1000):
        limits.take_turn(principal(f"host/{number}"))
    await asyncio.sleep(60)
    limits.take_turn(ALICE)
    assert len(limits._next) == 1
