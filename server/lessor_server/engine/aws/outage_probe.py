"""Pauses an account that AWS does not answer for, and probes it until it does.

A probe is a GetUser of a name that nobody has: any answer, a refusal too, shows that AWS is there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from lessor_server.domain import backoff
from lessor_server.domain.aws.iam_calls import GetUser
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.preconditions import RootNotSet
from lessor_server.domain.events import AccountPaused, AccountResumed
from lessor_server.domain.root import Root
from lessor_server.engine.aws.caller import is_inconclusive
from lessor_server.engine.aws.rate_limiter import RateLimiter
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.ports import Observer

PROBE_USER = "lessor-probe"


class OutageProbe:
    """One probing task for each paused rate limiter."""

    def __init__(
        self,
        roots: Roots,
        work: BackgroundTasks,
        notify: Observer,
        rng: random.Random,
        resumed: Callable[[], None],
    ) -> None:
        """Probe through ``roots``; ``resumed`` is called when an account answers again."""
        self._roots = roots
        self._work = work
        self._notify = notify
        self._rng = rng
        self._resumed = resumed

    def pause(self, root: Root, error: LessorError) -> None:
        """Pause the root's rate limiter and begin to probe, unless that is under way."""
        limiter = self._roots.limiter(root)
        if not limiter.paused_for:
            limiter.pause(error.message, backoff.probe(0, self._rng.random()))
            self._work.keep_running(partial(self._probe, root))

    async def _probe(self, root: Root) -> None:
        limiter = self._roots.limiter(root)
        failures = 0
        while True:
            self._notify(AccountPaused(limiter.account, limiter.paused_for, limiter.retry_in))
            await asyncio.sleep(limiter.retry_in)
            trouble = await self._trouble(root.mount, limiter)
            if trouble is None:
                limiter.resume()
                self._notify(AccountResumed(limiter.account))
                self._resumed()
                return
            failures += 1
            limiter.pause(trouble, backoff.probe(failures, self._rng.random()))

    async def _trouble(self, mount: str, limiter: RateLimiter) -> str | None:
        """Probe once; None if AWS answers, or if the mount is gone or now uses another rate limiter."""
        try:
            root = await self._roots.get(mount)
        except RootNotSet:
            return None  # the mount is gone; other mounts of the same rate limiter probe for themselves
        except LessorError as error:
            return error.message
        if self._roots.limiter(root) is not limiter:
            return None
        outcome = await self._roots.caller(root).call(GetUser(PROBE_USER))
        return str(outcome) if is_inconclusive(outcome) else None
