"""Checks how rounds of calls are sent and repeated."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from lessor_server.domain.aws import iam_calls
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.root import Root
from lessor_server.engine.aws.caller import AwsCaller, failure, is_inconclusive
from lessor_server.engine.aws.rate_limiter import Priority, RateLimit, RateLimiter
from tests.support import builders
from tests.support.iam import Iam
from tests.support.iam_faults import Fault, Kind
from tests.support.memory_aws import MemoryAws
from tests.support.slots import slot
from tests.support.virtual_loop import virtual

PUT = iam_calls.PutUserPolicy("u", "p", builders.DOCUMENT)
KEY = iam_calls.CreateAccessKey("u")


def made(latency: float = 0.05) -> tuple[Iam, MemoryAws, AwsCaller]:
    """Return an account, the way to it, and rounds over that."""
    loop = asyncio.get_running_loop()
    iam = Iam(now=loop.time)
    aws = MemoryAws({builders.ROOT_KEY: iam}, latency=latency)
    return iam, aws, over(aws, RateLimiter("a", RateLimit()))


def over(aws: MemoryAws, limiter: RateLimiter) -> AwsCaller:
    """Return a caller with a gateway to AWS and a rate limiter."""
    root = Root("aws", 1, builders.ACCOUNT, builders.root_config())
    return AwsCaller(aws, root, limiter, random.Random(1), Priority.ISSUE)


@virtual
async def test_the_calls_of_a_round_are_sent_together_and_all_awaited() -> None:
    iam, aws, caller = made()
    iam.create_user("u")
    aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey"))
    aws.faults.add(Fault(Kind.DELAY, "AttachUserPolicy", seconds=3.0))
    attach = iam_calls.AttachUserPolicy("u", builders.READ_ONLY)
    outcomes = await caller.call_all((KEY, PUT, attach))
    assert asyncio.get_running_loop().time() == pytest.approx(3.05)
    assert isinstance(outcomes[0], AwsRefused)
    assert outcomes[1:] == [None, None]
    assert iam.users["u"].attached == [builders.READ_ONLY]


@virtual
async def test_a_failed_call_is_not_repeated_by_default() -> None:
    iam, aws, caller = made()
    iam.create_user("u")
    for kind, outcome in ((Kind.REFUSE, AwsRefused), (Kind.LOSE, AwsUnknown), (Kind.THROTTLE, AwsRefused)):
        aws.faults.clear()
        aws.faults.add(Fault(kind, "CreateAccessKey"))
        aws.sent.clear()
        assert isinstance(await caller.call(KEY, lambda: True), outcome)
        assert len(aws.sent) == 1


@virtual
async def test_a_user_that_is_not_visible_is_waited_for_only_while_retries_are_allowed() -> None:
    iam, _, caller = made()
    iam.visible_after = 10.0
    iam.create_user("u")
    impatient = await caller.call(PUT)
    assert isinstance(impatient, AwsRefused)
    assert impatient.refusal is Refusal.NO_SUCH_USER
    loop = asyncio.get_running_loop()
    until = loop.time() + 2
    assert isinstance(await caller.call(PUT, lambda: loop.time() < until), AwsRefused)
    assert loop.time() < until + 3
    assert await caller.call(PUT, lambda: True) is None
    assert loop.time() >= 10.0


@virtual
async def test_a_call_is_repeated_for_at_most_30_seconds_with_growing_delays() -> None:
    _, aws, caller = made(latency=0.0)
    assert isinstance(await caller.call(PUT, lambda: True), AwsRefused)
    starts = [one.start for one in aws.sent]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert 0.1 <= gaps[0] <= 0.2
    assert max(gaps) <= 3.0
    assert 20.0 <= starts[-1] <= 30.0


@virtual
async def test_a_concurrent_modification_is_always_repeated() -> None:
    """The refused call had no effect."""
    iam, aws, caller = made()
    iam.create_user("u")
    aws.faults.add(
        Fault(Kind.REFUSE, "PutUserPolicy", nth=1, times=3, status=409, code="ConcurrentModification")
    )
    assert await caller.call(PUT) is None
    assert len(aws.sent) == 4


@virtual
async def test_a_refusal_is_returned_before_an_unknown_outcome() -> None:
    iam, aws, caller = made()
    iam.create_user("u")
    aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey"))
    aws.faults.add(Fault(Kind.REFUSE, "PutUserPolicy"))
    outcomes = await caller.call_all((KEY, PUT))
    assert isinstance(failure(outcomes), AwsRefused)
    assert failure([None]) is None
    assert [is_inconclusive(outcome) for outcome in outcomes] == [True, False]


@virtual
async def test_a_full_rate_limiter_is_an_outcome_too() -> None:
    _, aws, _ = made()
    limiter = RateLimiter("a", RateLimit(in_flight=1, queue=0))
    caller = over(aws, limiter)
    async with slot(limiter):
        outcome = await caller.call(PUT)
    assert isinstance(outcome, LessorError)
    assert outcome.reason == "PACER_QUEUE_FULL"
    assert aws.sent == []


CLASH = Fault(Kind.REFUSE, "PutUserPolicy", nth=1, times=1, status=409, code="ConcurrentModification")


class Account:
    """One account with a user, and one rate limiter."""

    def __init__(self) -> None:
        """Create both."""
        iam, self.aws, _ = made()
        iam.create_user("u")
        self._limiter = RateLimiter("a", RateLimit())

    def caller(self) -> AwsCaller:
        """Return the rounds of another user's lease."""
        return over(self.aws, self._limiter)

    async def clash(self, caller: AwsCaller) -> None:
        """Let one call meet ConcurrentModification once."""
        self.aws.faults.clear()
        self.aws.faults.add(CLASH)
        assert await caller.call(PUT) is None

    async def together(self, caller: AwsCaller) -> bool:
        """Send a round of two calls and tell whether they went out at the same time."""
        self.aws.sent.clear()
        await caller.call_all((PUT, iam_calls.AttachUserPolicy("u", builders.READ_ONLY)))
        return self.aws.sent[0].start == self.aws.sent[1].start


@virtual
async def test_after_a_concurrent_modification_the_user_s_calls_are_sent_one_by_one() -> None:
    account = Account()
    caller = account.caller()
    await account.clash(caller)
    assert not await account.together(caller)
    assert await account.together(account.caller())


@pytest.mark.parametrize(("apart", "serial"), [(1.0, True), (29.0, True), (31.0, False)])
@virtual
async def test_three_concurrent_modifications_in_a_minute_make_an_account_serial_for_an_hour(
    apart: float, serial: bool
) -> None:
    account = Account()
    for _ in range(3):
        await asyncio.sleep(apart)
        await account.clash(account.caller())
    assert await account.together(account.caller()) is not serial
    await asyncio.sleep(3590)
    assert await account.together(account.caller()) is not serial
    await asyncio.sleep(20)
    assert await account.together(account.caller())


@virtual
async def test_two_concurrent_modifications_do_not_make_an_account_serial() -> None:
    account = Account()
    for _ in range(2):
        await account.clash(account.caller())
    assert await account.together(account.caller())
