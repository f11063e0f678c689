"""Credentials that stay valid: their lease is renewed first, and issued again last (``lessor.refresh``)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lessor.calls import draw_request_id
from lessor.channel import BadConnection
from lessor.errors import Aborted, Error, Unavailable
from lessor.leases import setback_of
from lessor.leasing.clock import Clock, wait_until
from lessor.leasing.issued import InvalidCredentials, Issued, Order
from lessor.leasing.server import SPENT, LeaseServer
from lessor.refresh import NO_TIME, WARN_LEFT, Setback, Step, retry_pause

FIRST_TRIES: Final = 4
"""How often the first issue is tried while the server is busy."""
_NOT_REACHED: Final = "can't reach a server"
REVOKE_SECONDS: Final = 30.0
"""For how long a revocation is retried if the server is unreachable."""
HURRY_POLL_SECONDS: Final = 0.2
Failure = Error | BadConnection | InvalidCredentials
FAILURES: Final = (Error, BadConnection, InvalidCredentials)


@dataclass(frozen=True, slots=True)
class Plan:
    """How credentials are kept valid.

    Attributes:
        order: What to issue.
        min_left: How long the credentials must be valid when they are handed out.
        reissues: Whether their users can receive new ones; otherwise the user is warned before the end.
    """

    order: Order
    min_left: timedelta = NO_TIME
    reissues: bool = True


@dataclass(frozen=True, slots=True)
class Tools:
    """What a refreshed lease works with: the server, the time, random numbers, and where messages go."""

    server: LeaseServer
    clock: Clock
    rng: random.Random
    report: Callable[[str], None]


class RefreshedLease:
    """The current credentials of one plan, and every lease that was issued for it."""

    def __init__(
        self, plan: Plan, tools: Tools, changed: Callable[[RefreshedLease], None] = lambda _: None
    ) -> None:
        """Begin without credentials; ``changed`` is called after each issue, renewal and revocation."""
        self.plan = plan
        self.current: Issued | None = None
        self.leases: dict[str, datetime] = {}
        """Leases to revoke, each with its end."""
        self.hurried = False
        """Whether the user waits: revocations are no longer retried."""
        self._tools = tools
        self._changed = changed
        self._request_id = ""
        self._reported = False

    async def issue_first(self) -> Issued:
        """Issue the first credentials.

        A busy server is asked again a few times; one that can't be reached is not.

        Raises:
            Error: The server refused.
            BadConnection: The connection's settings are not usable.
        """
        for tries in range(FIRST_TRIES):
            try:
                return await self._issue()
            except (Unavailable, Aborted) as error:
                if tries == FIRST_TRIES - 1 or error.message.startswith(_NOT_REACHED):
                    raise
                await self._pause(error, tries)
        raise AssertionError("the last try returns or raises")

    async def issue_when_reachable(self) -> Issued:
        """Issue the first credentials as soon as the server can; raises as ``issue_first`` if it refuses."""
        for tries in range(1 << 30):
            try:
                return await self._issue()
            except Error as error:
                if setback_of(error) is not Setback.AWAY:
                    raise
                self._report_once(f"waiting for the server: {error}")
                await self._pause(error, tries)
        raise AssertionError("it returns or raises")

    async def run(self) -> None:
        """Keep the credentials valid until cancelled, or until they end and can't be replaced."""
        tries = 0
        while True:
            issued = self._issued()
            now = self._tools.clock.now()
            step = issued.term.next_step(now, self.plan.min_left)
            if step is Step.KEEP:
                await wait_until(self._tools.clock, issued.term.refresh_time(self.plan.min_left))
            elif step is Step.ISSUE and not self._can_issue():
                await self._announce_end(issued)
                return
            elif await self._try(step, issued, tries):
                tries, self._reported = 0, False
            else:
                tries += 1

    async def revoke_all(self, seconds: float = REVOKE_SECONDS) -> None:
        """Revoke every lease that has not ended; retry for ``seconds``, then report what is left."""
        async with asyncio.TaskGroup() as group:
            for lease_id, end in tuple(self.leases.items()):
                if end > self._tools.clock.now():
                    group.create_task(self._revoke(lease_id, end, seconds))
                else:
                    del self.leases[lease_id]
        self._changed(self)

    def _issued(self) -> Issued:
        assert self.current is not None, "nothing was issued yet"
        return self.current

    def _can_issue(self) -> bool:
        return self.plan.reissues and self.plan.order.is_repeatable

    async def _try(self, step: Step, issued: Issued, tries: int) -> bool:
        """Renew or issue once and return True, or wait until the next try and return False."""
        try:
            if step is Step.ISSUE:
                await self._issue()
            else:
                self._keep(await self._tools.server.renew(issued))
        except FAILURES as error:
            if self._handle(step, issued, error) is Setback.AWAY or step is Step.ISSUE:
                await self._pause(error, tries)
            return False
        return True

    def _handle(self, step: Step, issued: Issued, error: Failure) -> Setback:
        """Report a failure, keep what it means for the lease, and return that."""
        role, now = self.plan.order.role, self._tools.clock.now()
        setback = Setback.AWAY if isinstance(error, InvalidCredentials) else setback_of(error)
        if step is Step.RENEW and setback is not Setback.AWAY:
            self._tools.report(f"warning: lease {issued.lease_id} can't be renewed: {error}")
        else:
            what = "renewed" if step is Step.RENEW else "replaced"
            left = max(int(issued.term.left(now).total_seconds()), 0)
            self._report_once(
                f"warning: the credentials of role {role} can't be {what} now and end in {left}s; "
                f"retrying: {error}"
            )
        if step is Step.RENEW:
            self.current = issued.with_term(issued.term.after_setback(setback, now))
        return setback

    def _report_once(self, text: str) -> None:
        """Report the first of a row of failures."""
        if not self._reported:
            self._tools.report(text)
        self._reported = True

    async def _announce_end(self, issued: Issued) -> None:
        """Warn before the credentials end, and report when they have ended."""
        role, lease_id = self.plan.order.role, issued.lease_id
        await wait_until(self._tools.clock, issued.term.end - WARN_LEFT)
        if left := max(int(issued.term.left(self._tools.clock.now()).total_seconds()), 0):
            self._tools.report(
                f"warning: the credentials of role {role} end in {left}s and can't be replaced in the "
                "environment of a running program; restart it, or use --endpoint"
            )
        await wait_until(self._tools.clock, issued.term.end)
        self._tools.report(f"warning: the credentials of role {role} have ended (lease {lease_id})")

    async def _issue(self) -> Issued:
        """Issue; a try after a lost answer has the same request id, so that it creates no second user."""
        if not self._request_id:
            self._request_id = draw_request_id(self._tools.rng)
        try:
            issued = await self._tools.server.issue(self.plan.order, self._request_id)
        except Error as error:
            if error.reason_name != SPENT:
                raise
            self._request_id = draw_request_id(self._tools.rng)
            issued = await self._tools.server.issue(self.plan.order, self._request_id)
        self._request_id = ""
        for warning in issued.warnings:
            self._tools.report(f"warning: {warning}")
        self._keep(issued)
        return issued

    def _keep(self, issued: Issued) -> None:
        self.current = issued
        self.leases[issued.lease_id] = issued.term.end
        now = self._tools.clock.now()
        self.leases = {lease_id: end for lease_id, end in self.leases.items() if end > now}
        self._changed(self)

    async def _pause(self, error: Failure, tries: int) -> None:
        asked = error.retry_after if isinstance(error, Error) else None
        pause = asked or retry_pause(tries, self._tools.rng.uniform(0, 1))
        await wait_until(self._tools.clock, self._tools.clock.now() + pause)

    async def _revoke(self, lease_id: str, end: datetime, seconds: float) -> None:
        """Revoke one lease; retry while the server is unreachable, and report what remains."""
        clock = self._tools.clock
        late = clock.now() + timedelta(seconds=seconds)
        for tries in range(1 << 30):
            try:
                left = max((late - clock.now()).total_seconds(), 1.0)
                pending = await self._tools.server.revoke(lease_id, left)
            except (Error, BadConnection) as error:
                pause = retry_pause(tries, self._tools.rng.uniform(0, 1))
                if setback_of(error) is Setback.AWAY and clock.now() + pause < late and not self.hurried:
                    until = clock.now() + pause
                    while clock.now() < until and not self.hurried:
                        await clock.sleep(HURRY_POLL_SECONDS)
                    continue
                if setback_of(error) is not Setback.LOST:
                    self._tools.report(
                        f"lease {lease_id} was not revoked and ends at {end:%Y-%m-%d %H:%M:%S} UTC: {error}; "
                        f"run `lessor lease revoke {lease_id}`"
                    )
                    return
                pending = ""
            if pending:
                self._tools.report(f"warning: lease {lease_id} is being revoked: {pending}")
            del self.leases[lease_id]
            return
