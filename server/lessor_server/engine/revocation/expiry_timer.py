"""The window: which deadlines of the store are held in memory, and the one timer that watches them.

The store is the truth and the wheel a hint, so a hint that is lost, doubled, early or late can revoke
nothing wrongly. The window begins at now (the revocation worker asks the store for overdue ids), reaches at
most ten minutes ahead and holds at most ``LIMIT`` rows, so a start and the memory depend on what is
near, not on how many leases there are. It is read again when half of its time has passed; where that
came too late for what lay beyond it (more was due together than it holds, or the machine slept), the
revocation worker is asked to read the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.engine.ports import LeaseStore
from lessor_server.engine.revocation.wheel import Wheel

SPAN = timedelta(minutes=10)
LIMIT = 50_000
RETRY_SECONDS, POLL_SECONDS = 1.0, 30.0
MAX_TIMER_SECONDS = 2.0
"""How far ahead the timer is set at most: the clock of the loop stops during a sleep of the machine."""


class ExpiryTimer:
    """Hands ids to ``fire`` when their deadlines in the store come."""

    def __init__(
        self,
        store: LeaseStore,
        fire: Callable[[list[str]], None],
        missed: Callable[[], None],
        limit: int = LIMIT,
    ) -> None:
        """Watch ``store``; ``missed`` is called for ids due but unread; neither it nor ``fire`` may block."""
        self._store = store
        self._fire = fire
        self._missed = missed
        self._limit = limit
        self._read_us = (0, 0)
        """When the store was read, and up to when: what falls due in between is known."""
        self._wheel = Wheel()
        self._horizon_us = 0
        self._handle: asyncio.Handle | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        """Return how many deadlines are held in memory."""
        return len(self._wheel)

    def watch(self, lease_id: str, due_us: int) -> None:
        """Note that a lease's deadline is now ``due_us``; call it after the commit."""
        if due_us <= self._store.now():
            self._wheel.cancel(lease_id)
            self._fire([lease_id])
        elif due_us < self._horizon_us:
            self._wheel.insert(lease_id, due_us)
            self._arm()
        else:
            self._wheel.cancel(lease_id)

    async def run(self) -> None:
        """Fill the window again and again, until cancelled."""
        try:
            while True:
                began_us = self._store.now()
                again_us = began_us + int(await self._fill_or_wait() * 1e6)
                # The loop's clock stands still while the machine sleeps; the service's does not, and may be
                # set back.
                while began_us <= (now := self._store.now()) < again_us:  # noqa: ASYNC110 - no event signals it
                    await asyncio.sleep(min((again_us - now) / 1e6, POLL_SECONDS))
        finally:
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None

    async def _fill_or_wait(self) -> float:
        try:
            return await self.fill()
        except StoreUnavailable:
            return RETRY_SECONDS

    async def fill(self) -> float:
        """Read what falls due within the window; return after how many seconds to do it again."""
        now = self._store.now()
        end = now + SPAN // MICROSECOND
        # Announced before the read: a lease committed while the read runs is then kept by watch().
        self._horizon_us = end
        # Life of an expiry, 1.
        rows = await self._store.list_due_within(SPAN, self._limit)
        if not self._read_us[0] <= self._store.now() < self._read_us[1]:
            self._missed()
        self._read_us = (now, end)
        if len(rows) == self._limit:
            self._read_us = (now, rows[-1][1])  # others may share this very instant
            self._horizon_us = rows[-1][1] + 1
        for lease_id, due_us in rows:
            self._wheel.insert(lease_id, due_us)
        self._arm()
        return max((self._horizon_us - now) / 2e6, RETRY_SECONDS)

    def _arm(self) -> None:
        """Set the one timer to the next slot that holds something."""
        due_us = self._wheel.next_us()
        if due_us is None:
            return
        loop = asyncio.get_running_loop()
        left = max(0, due_us - self._store.now()) / 1e6
        when = loop.time() + min(left, MAX_TIMER_SECONDS)
        if self._handle is not None:
            if self._rings_at <= when:
                return
            self._handle.cancel()
        self._handle, self._rings_at = loop.call_at(when, self._on_timer), when

    def _on_timer(self) -> None:
        self._handle = None
        due = self._wheel.pop(self._store.now())
        try:
            if due:
                self._fire(due)  # life of an expiry, 2
        finally:
            self._arm()
