"""Decides whether leases may expire now, and if not, why.

Expiries are held while the clock is not trusted, while the store may be older than the account (a
restored backup: the first reconcile run finds out), or while an operator wants it. Renewals, issues and
explicit revocations continue. AWS confirms the clock by the Date of one answer, at a start and after a jump
of the wall clock. A hold in the store counts for all processes immediately, whichever process began it;
each reads it every 5 s, to report it, and to continue when it has ended.
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
"""How often the hold in the store and the clock are checked, and, while it is not trusted, AWS's time."""

WITNESSES = 100
"""Mounts whose roots are asked, one after another, until one answers."""

AGREES_US = 120_000_000
"""The clock and AWS agree within two minutes."""

JUMP_US = 60_000_000
"""A wall clock that parts from the boot-time clock by more than this has jumped."""

CLOCK_UNTRUSTED, STORE_ROLLED_BACK, ASKED = "CLOCK_UNTRUSTED", "STORE_ROLLED_BACK", "ASKED"
FIRST_SWEEP = "FIRST_SWEEP"


class ExpiryHold:
    """Pauses and resumes expiry."""

    def __init__(self, store: Store, roots: Roots, notify: Observer, resumed: Callable[[], None]) -> None:
        """Ask AWS through ``roots``; ``resumed`` is called when leases expire again."""
        self._store = store
        self._roots = roots
        self._notify = notify
        self._resumed = resumed
        self._why = ""
        self._clock_trusted = self._swept = True
        self._drift_us = 0
        self.resumed = False
        """A person has let expiries count since this start: what a restored store lost may be revoked."""

    @property
    def held(self) -> bool:
        """Return whether expiry is held."""
        return bool(self._why) or not self._clock_trusted or not self._swept

    @property
    def clock_trusted(self) -> bool:
        """Return whether the service's time may be compared with times from AWS or an earlier start."""
        return self._clock_trusted

    @property
    def why(self) -> str:
        """Return why expiries are held, or an empty text."""
        if self._why or not self.held:
            return self._why
        return FIRST_SWEEP if self._clock_trusted else CLOCK_UNTRUSTED

    async def start(self) -> None:
        """Take up the hold of the start before; call it before anything is claimed."""
        status = await self._store.status()
        self._why = status.expiry_hold
        self._drift_us = self._store.drift_us()
        self._clock_trusted = self._swept = status.first_start
        if self.held:
            self._notify(ExpiryHeld(self.why))

    async def run(self) -> None:
        """Follow the hold in the store, and ask the witness until the clock is trusted; until cancelled."""
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
        """Learn that another process has begun a hold, or that a person has ended it there."""
        before = self._why
        try:
            why = (await self._store.status()).expiry_hold
        except StoreUnavailable:
            return
        if self._why != before or why == before:
            return  # as it was, or changed here while the store was asked
        self._why = why
        if why:
            self._notify(ExpiryHeld(why))
        else:
            self.resumed = self._swept = True
            self._let_go()

    async def hold(self, why: str, by: str = "") -> None:
        """Hold expiries, across starts too, until ``resume``; ``by`` is who asks, if anybody does."""
        await self._store.set_expiry_hold(why)
        if by or not self._why:
            self._notify(ExpiryHeld(why, by))
        self._why = why

    async def resume(self, *, lower_clock: bool, by: str = "") -> None:
        """Let expiries count again, whatever held them, since a person, ``by``, wants it.

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
        """Record that the first reconcile run has ended: it would have found a store that was rolled back."""
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
        """Return how far the service's time is ahead of AWS's; None where no root gets an answer."""
        try:
            mounts = await self._store.list_mounts("", WITNESSES)
        except LessorError:
            return None
        for mount in mounts:
            try:
                root = await self._roots.get(mount.name)
            except LessorError:
                continue  # it has no root, or none that opens: another may answer
            answer = await self._roots.caller(root).call(GetServerTime())
            if not isinstance(answer, LessorError):
                # An endpoint that returns no time is not AWS, and there is no other clock to compare with.
                return self._store.now() - answer if answer else 0
        return None
