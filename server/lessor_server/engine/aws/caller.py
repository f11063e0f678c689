"""Sends AWS calls in rounds, through a rate limiter, and returns errors instead of raising them.

A call that was sent is never cancelled: all calls of a round are awaited, so that everything that is
known can be recorded before anything is rolled back. After ConcurrentModification the rest of this
user's calls go one after another; an account that meets it often gets serial rounds for an hour.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.errors.base import LessorError, RateLimiterFull
from lessor_server.domain.root import Root
from lessor_server.engine.aws.rate_limiter import Priority, RateLimiter
from lessor_server.engine.ports import Aws

T = TypeVar("T")

REPEAT_FIRST, REPEAT_MAX, REPEAT_FOR = 0.2, 3.0, 30.0
"""Seconds: the first wait before a repeated call, the longest wait, and for how long a call is repeated."""
TRIES = 3
"""How often a call without an answer is sent, if the root has no ``max_retries``."""


Outcome: TypeAlias = T | LessorError
"""AWS's answer to a call, or the error: refused, without an answer, or not sent."""


def _never() -> bool:
    return False


def failure(outcomes: list[Outcome[object]]) -> LessorError | None:
    """Return the first error: refusals before calls without an answer."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, LessorError)]
    failed.sort(key=lambda outcome: not isinstance(outcome, AwsRefused))
    return failed[0] if failed else None


def is_inconclusive(outcome: object) -> bool:
    """Return whether an outcome says nothing about the lease: no answer, a failure of AWS, or throttling."""
    if isinstance(outcome, AwsRefused):
        return outcome.refusal is Refusal.THROTTLED
    return isinstance(outcome, (AwsUnknown, RateLimiterFull))


class AwsCaller:
    """Sends calls for one root."""

    def __init__(
        self, aws: Aws, root: Root, limiter: RateLimiter, rng: random.Random, priority: Priority
    ) -> None:
        """Send through ``limiter`` with ``priority``; ``rng`` gives the jitter."""
        self._aws = aws
        self._root = root
        self._limiter = limiter
        self._rng = rng
        self._priority = priority
        self._serial = False

    @property
    def tries(self) -> int:
        """Return how often a call without an answer is sent; 1 means that it is not repeated."""
        retries = self._root.config.max_retries
        return TRIES if retries is None else retries + 1

    async def call(self, call: Call[T], may_retry: Callable[[], bool] = _never) -> Outcome[T]:
        """Send one call; repeat it while AWS does not find its new user and ``may_retry()`` is true.

        ConcurrentModification is repeated whatever ``may_retry`` says: AWS asks for it, and the refused call
        had no effect. A root's ``max_retries`` bounds the repeats.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + REPEAT_FOR
        wait, repeats = REPEAT_FIRST, 0
        while True:
            outcome: Outcome[T]
            try:
                if not self._limiter.try_acquire(self._priority):
                    await self._limiter.acquire(self._priority)
                try:
                    outcome = await self._aws.send(self._root, call)
                finally:
                    self._limiter.release()
            except LessorError as error:
                outcome = error
            if not isinstance(outcome, AwsRefused):
                return outcome
            self._note(outcome)
            spent = repeats == self._root.config.max_retries or loop.time() + wait > until
            if spent or not _repeatable(outcome, may_retry):
                return outcome
            repeats += 1
            await asyncio.sleep(wait * self._rng.uniform(0.5, 1.0))
            wait = min(wait * 2, REPEAT_MAX)

    async def call_all(
        self, calls: tuple[Call[object], ...], may_retry: Callable[[], bool] = _never
    ) -> list[Outcome[object]]:
        """Send all ``calls`` at the same time and wait for every one of them."""
        if len(calls) <= 1 or self._one_by_one():
            return [await self.call(call, may_retry) for call in calls]
        first, *others = calls
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.call(call, may_retry)) for call in others]
            outcome = await self.call(first, may_retry)
        return [outcome, *(task.result() for task in tasks)]

    def _one_by_one(self) -> bool:
        return self._serial or asyncio.get_running_loop().time() < self._limiter.conflicts.serial_until

    def _note(self, refused: AwsRefused) -> None:
        if refused.refusal is Refusal.CONCURRENT:
            self._serial = True
            self._limiter.conflicts.record(asyncio.get_running_loop().time())
        elif refused.refusal is Refusal.THROTTLED:
            self._limiter.throttled()


def _repeatable(refused: AwsRefused, may_retry: Callable[[], bool]) -> bool:
    if refused.refusal is Refusal.CONCURRENT:
        return True
    return refused.refusal is Refusal.NO_SUCH_USER and may_retry()
