"""Decides whether leases may expire now, and if not, why.

Expiry is held while the clock is not trusted, while the store may be older than the account (a restored
backup, which the first reconcile run detects), or while an operator wants it. Renewals, issues and explicit
revocations continue. The Date of one AWS answer confirms the clock, at a start and after a jump of the wall
clock. A hold in the store applies to all processes immediately; each reads it every 5 s, to report it and to
resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lessor_server.domain.aws.sts_calls import GetServerTime
from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.errors.preconditions import ClockDisagrees
from lessor_server.domain.events import ClockLowered, ExpiryHeld, ExpiryResumed
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.ports import Observer, Store

POLL_SECONDS = 5.0
"""The interval for checks of the stored hold and the clock, and of AWS's time while it is not trusted."""

WITNESSES = 100
"""The number of mounts whose roots are tried until AWS answers."""

AGREES_US = 120_000_000
"""The allowed difference between the clock and AWS's."""

JUMP_US = 60_000_000
"""The wall clock has jumped if it drifts from the boot-time clock by more than this."""

CLOCK_UNTRUSTED, STORE_ROLLED_BACK, ASKED = "CLOCK_UNTRUSTED", "STORE_ROLLED_BACK", "ASKED"
FIRST_SWEEP = "FIRST_SWEEP"


class ExpiryHold:
    """Pauses and resumes expiry."""

    def __init__(self, store: Store, roots: Roots, notify: Observer, resumed: Callable[[], None]) -> None:
        """Ask AWS through ``roots``; call ``resumed`` when leases expire again."""
        self._store = store
        self._roots = roots
        self._notify = notify
        self._resumed = resumed
        self._why = ""
        self._clock_trusted = self._swept = True
        self._drift_us = 0
        self.resumed = False
        """An operator has resumed expiry since this start: users without a row may be revoked."""

    @property
    def held(self) -> bool:
        """Return whether expiry is held."""
        return bool(self._why) or not self._clock_trusted or not self._swept

    @property
    def clock_trusted(self) -> bool:
        """Return whether the service's time can be compared with times from AWS or an earlier start."""
        return self._clock_trusted

    @property
    def why(self) -> str:
        """Return why expiry is held, or an empty text."""
        if self._why or not self.held:
            return self._why
        return FIRST_SWEEP if self._clock_trusted else CLOCK_UNTRUSTED

    async def start(self) -> None:
        """Read the hold of an earlier start; call this before anything is claimed."""
        status = await self._store.status()
        self._why = status.expiry_hold
        self._drift_us = self._store.drift_us()
        self._clock_trusted = self._swept = status.first_start
        if self.held:
            self._notify(ExpiryHeld(self.why))

    async def run(self) -> None:
        """Poll the hold in the store, and AWS's time until the clock is trusted, until cancelled."""
        while True:
            await self._look_at_the_hold()
            drift_us = self._store.drift_us()
            if abs(drift_us - self._drift_us) > JUMP_US:
                self._drift_us = drift_us
                self._distrust()
            if not self._clock_trusted and await self._clock_agrees_with_aws():
                self._trust()
            await asyncio.sleep(POLL_SECONDS)

    async def _look_at_the_hold(self) -> None:
        """Apply a hold that another process began in the store, or that an operator ended there."""
        before = self._why
        try:
            why = (await self._store.status()).expiry_hold
        except StoreUnavailable:
            return
        if self._why != before or why == before:
            return  # unchanged, or changed here during the read
        self._why = why
        if why:
            self._notify(ExpiryHeld(why))
        else:
            self.resumed = self._swept = True
            self._let_go()

    async def hold(self, why: str, by: str = "") -> None:
        """Hold expiry, also across starts, until ``resume``; ``by`` is the caller, if any."""
        await self._store.set_expiry_hold(why)
        if by or not self._why:
            self._notify(ExpiryHeld(why, by))
        self._why = why

    async def resume(self, *, lower_clock: bool, by: str = "") -> None:
        """Resume expiry, for whatever reason it was held, because the operator ``by`` wants it.

        Raises:
            ClockDisagrees: The clock is to be lowered, and wall clock and AWS do not agree.
        """
        if lower_clock:
            await self._lower_clock()
            self._notify(ClockLowered(by))
        await self._store.set_expiry_hold("")
        self._why = ""
        self.resumed = self._swept = True
        self._trust(by)

    async def _lower_clock(self) -> None:
        ahead_us = await self._skew_us()
        drift_us = self._store.drift_us()
        # The wall clock is drift_us ahead of the service's time, which is ahead_us ahead of AWS.
        if ahead_us is None or abs(ahead_us + drift_us) > AGREES_US:
            raise ClockDisagrees("the wall clock and AWS do not agree, or AWS does not answer")
        await self._store.lower_clock()
        self._drift_us = 0

    def _distrust(self) -> None:
        if self._clock_trusted:
            self._clock_trusted = False
            self._notify(ExpiryHeld(CLOCK_UNTRUSTED))

    def swept(self) -> None:
        """Record that the first reconcile run has ended: it has not found a store that was rolled back."""
        if not self._swept:
            self._swept = True
            self._let_go()

    def _trust(self, by: str = "") -> None:
        self._clock_trusted = True
        self._let_go(by)

    def _let_go(self, by: str = "") -> None:
        if not self.held:
            self._notify(ExpiryResumed(by))
            self._resumed()

    async def _clock_agrees_with_aws(self) -> bool:
        ahead_us = await self._skew_us()
        return ahead_us is not None and abs(ahead_us) <= AGREES_US

    async def _skew_us(self) -> int | None:
        """Return how far the service's time is ahead of AWS's; None if no root gets an answer."""
        try:
            mounts = await self._store.list_mounts("", WITNESSES)
        except LessorError:
            return None
        for mount in mounts:
            try:
                root = await self._roots.get(mount.name)
            except LessorError:
                continue  # no usable root: another mount's may work
            answer = await self._roots.caller(root).call(GetServerTime())
            if not isinstance(answer, LessorError):
                # An endpoint that returns no time is not AWS, and there is no other clock to compare with.
                return self._store.now() - answer if answer else 0
        return None
