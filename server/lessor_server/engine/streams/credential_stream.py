"""Streams of credentials: new ones are issued before each expiry, and the previous ones end soon after.

A stream has no stored state. Each lease is an ordinary one; to retire it, its expiry is brought forward in
the store. If the process is killed, the last lease of each stream ends at its original expiry.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta

from lessor_server.domain import backoff, durations, ttl
from lessor_server.domain import lease as steps
from lessor_server.domain.access import issue_limits
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import LessorError, StoreUnavailable, Violation
from lessor_server.domain.errors.preconditions import MfaRefused
from lessor_server.domain.events import Retired
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.mount import Mount
from lessor_server.domain.policy import session
from lessor_server.domain.role import Role
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing.issuer import MIN_SECONDS, Issuer
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.ports import Observer, Store, Watch
from lessor_server.engine.revocation.queue import RevocationQueue

ISSUE_SECONDS, POLL_SECONDS, RETRY_SECONDS = 60.0, 30.0, 1.0
MARGIN, MAX_MARGIN = 0.1, timedelta(minutes=5)
"""The time to issue the next credentials before the overlap: this share of the ttl, at most 5 min."""

SPREAD = 0.5
"""Jitter on that time: streams that begin together do not always issue together."""

MAX_LEFT = 0.75
"""The next credentials are not issued while more than this share of the ttl is left."""


class CredentialStream:
    """Issues the credentials of streams before each expiry, and retires the previous ones."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        queue: RevocationQueue,
        watch: Watch,
        notify: Observer,
        background: BackgroundTasks,
        rng: random.Random,
    ) -> None:
        """Issue by ``issuer``; ``rng`` draws the jitter."""
        self._store = store
        self._issuer = issuer
        self._queue = queue
        self._watch = watch
        self._notify = notify
        self._background = background
        self._rng = rng

    async def follow(
        self, ask: Callable[[], IssueRequest], overlap: timedelta
    ) -> AsyncGenerator[Credentials, None]:
        """Yield credentials, the first immediately and others before each expiry, until closed.

        Asking for the next item confirms delivery of the previous one. The previous lease then lasts at most
        ``overlap`` longer, as does the last one when the stream ends. ``ask`` returns the request, and is
        called again before each issue, so that the rules of that moment hold for it.

        Raises:
            Invalid: The lease's ttl is less than twice the ``overlap``.
            LessorError: ``ask`` raised it, or credentials were not issued (the next ones: not in time).
        """
        asked = ask()
        await self._require_room(asked, overlap)
        made = await self._issuer.generate(asked, ISSUE_SECONDS)
        held = [made.lease]
        try:
            while True:
                yield made
                del made  # a stream may wait for hours: keep no secret in memory
                while len(held) > 1:
                    self._retire(held.pop(0), overlap)
                made = await self._next(held[0], ask, overlap)
                held.append(made.lease)
        finally:
            for lease in held:
                self._retire(lease, overlap)

    async def _require_room(self, asked: IssueRequest, overlap: timedelta) -> None:
        """Refuse an overlap with which more than two credentials would be valid at the same time."""
        stored = await self._store.load_issue_context(asked.mount, asked.role)
        if stored.mount is None or stored.role is None:
            return  # the issue reports what is missing
        issue_limits.require_allowed(asked.grant.pattern, asked.grant.limits, stored.role, asked.options)
        found = durations.violations("overlap", overlap) + ttl.violations(
            asked.ttl, stored.role, stored.mount
        )
        if not found and (life := _life(asked, stored.role, stored.mount)) < 2 * overlap:
            half = durations.format_duration(life)
            problem = f"{durations.format_duration(overlap)} is more than half of the ttl, {half}"
            found.append(Violation("overlap", problem, "give a shorter overlap, or ask for a longer ttl"))
        session.require_valid_options(stored.role, asked.options, found)

    async def _next(self, before: Lease, ask: Callable[[], IssueRequest], overlap: timedelta) -> Credentials:
        """Issue the credentials that follow ``before``; retry until those end."""
        await self._wait_until_due(before, overlap)
        if ask().options.mfa_code:
            raise MfaRefused("an MFA code is valid once, so the next credentials need another one")
        failures = 0
        while True:
            left = self._seconds_until(before.expires_us)
            asked = replace(ask(), request=None)  # a request id names one lease: the first
            try:
                return await self._issuer.generate(asked, min(max(left, MIN_SECONDS), ISSUE_SECONDS))
            except LessorError:
                left = self._seconds_until(before.expires_us)
                if left <= 0:
                    raise
            await asyncio.sleep(min(backoff.probe(failures, self._rng.random()), left))
            failures += 1

    async def _wait_until_due(self, lease: Lease, overlap: timedelta) -> None:
        """Wait until the next credentials are due: before the expiry, or once the lease is revoked."""
        margin = min(MARGIN * lease.ttl, MAX_MARGIN) * self._rng.uniform(1, 1 + SPREAD)
        # Even with a lowered ttl of the role, a stream pauses between issues.
        earliest_us = lease.expires_us - MAX_LEFT * lease.ttl // MICROSECOND
        due_us = max(lease.expires_us - (overlap + margin) // MICROSECOND, earliest_us)
        with self._queue.next_attempt(lease.id) as revoked:
            while not revoked.done() and (left := self._seconds_until(due_us)) > 0:
                await asyncio.wait([revoked], timeout=min(left, POLL_SECONDS))

    def _seconds_until(self, instant_us: int) -> float:
        return (instant_us - self._store.now()) / 1e6

    def _retire(self, lease: Lease, overlap: timedelta) -> None:
        self._background.start(
            self._bring_expiry_forward(lease.id, self._store.now() + overlap // MICROSECOND)
        )

    async def _bring_expiry_forward(self, lease_id: str, end_us: int) -> None:
        """Bring the expiry of a live lease forward to ``end_us``; never raise."""
        while True:
            try:
                lease = await self._store.get(lease_id)
                # The revocation worker handles an expired lease; while expiry is held it stays ACTIVE.
                over_us = max(end_us, self._store.now())
                if lease is None or lease.state is not State.ACTIVE or lease.expires_us <= over_us:
                    return
                retired = steps.retire(lease, end_us)
                if await self._store.write(lease, retired):
                    self._watch(retired.id, retired.due_us)
                    self._notify(Retired(retired.id, retired.expires_us, owner=retired.owner))
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(RETRY_SECONDS)


def _life(asked: IssueRequest, role: Role, mount: Mount) -> timedelta:
    """Return the ttl of the credentials that a request would get."""
    return ttl.grant(asked.ttl, role, mount, rule=asked.grant).ttl
