"""Keeps the next deadlines of the store in memory, with one timer for them.

These are hints: the revocation worker checks the store before it acts, so a lost, duplicate, early or late
hint revokes nothing wrongly. The window covers at most the next ten minutes and ``LIMIT`` rows, so start time
and memory do not grow with the number of leases. It is read again after half of its time. If deadlines beyond
it may have passed (more were due than it holds, or the machine slept), the worker scans the store.
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
"""The longest wait of the timer: the loop's clock stops while the machine sleeps."""


class ExpiryTimer:
    """Calls ``fire`` with ids when their deadlines are due."""

    def __init__(
        self,
        store: LeaseStore,
        fire: Callable[[list[str]], None],
        missed: Callable[[], None],
        limit: int = LIMIT,
    ) -> None:
        """Watch ``store``; call ``missed`` if unread ids may be due; it and ``fire`` must not block."""
        self._store = store
        self._fire = fire
        self._missed = missed
        self._limit = limit
        self._read_us = (0, 0)
        """The time of the last read of the store, and the time up to which all deadlines are known."""
        self._wheel = Wheel()
        self._horizon_us = 0
        self._handle: asyncio.Handle | None = None
        self._armed_us = 0
        """The deadline for which ``_handle`` is set."""

    def __len__(self) -> int:
        """Return the number of deadlines in memory."""
        return len(self._wheel)

    def watch(self, lease_id: str, due_us: int) -> None:
        """Update a lease's deadline to ``due_us``; call this after the commit."""
        if due_us <= self._store.now():
            self._wheel.cancel(lease_id)
            self._fire([lease_id])
        elif due_us < self._horizon_us:
            self._wheel.insert(lease_id, due_us)
            self._arm()
        else:
            self._wheel.cancel(lease_id)

    async def run(self) -> None:
        """Refill the window regularly, until cancelled."""
        try:
            while True:
                began_us = self._store.now()
                again_us = began_us + int(await self._fill_or_wait() * 1e6)
                # The loop's clock stops while the machine sleeps; the service's does not, and may be
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
        """Read the deadlines within the window; return the seconds until the next read."""
        now = self._store.now()
        end = now + SPAN // MICROSECOND
        # Set before the read, so that watch() keeps a lease that is committed during the read.
        self._horizon_us = end
        # Life of an expiry, 1.
        rows = await self._store.list_due_within(SPAN, self._limit)
        if not self._read_us[0] <= self._store.now() < self._read_us[1]:
            self._missed()
        self._read_us = (now, end)
        if len(rows) == self._limit:
            self._read_us = (now, rows[-1][1])  # further rows may have the same instant
            self._horizon_us = rows[-1][1] + 1
        for lease_id, due_us in rows:
            self._wheel.insert(lease_id, due_us)
        self._arm()
        return max((self._horizon_us - now) / 2e6, RETRY_SECONDS)

    def _arm(self) -> None:
        """Set the timer to the next filled slot."""
        due_us = self._wheel.next_us()
        if due_us is None:
            return
        if self._handle is not None:
            if self._armed_us <= due_us:
                return  # it fires in time, at the latest after MAX_TIMER_SECONDS
            self._handle.cancel()
        left = max(0, due_us - self._store.now()) / 1e6
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(min(left, MAX_TIMER_SECONDS), self._on_timer)
        self._armed_us = due_us

    def _on_timer(self) -> None:
        self._handle = None
        due = self._wheel.pop(self._store.now())
        try:
            if due:
                self._fire(due)  # life of an expiry, 2
        finally:
            self._arm()
