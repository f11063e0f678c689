"""The time of this machine, which callers of the package pass along."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Protocol

from lessor.clock import MachineClock

MAX_SLEEP_SECONDS: Final = 15.0
"""How long a wait lasts before it reads the time again: a suspended machine wakes up late."""


class Clock(Protocol):
    """Reads the time and waits."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``, or less if the time may have changed meanwhile."""
        ...


class SystemClock:
    """The clock of this machine."""

    _machine = MachineClock()

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self._machine.now()

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``, at most ``MAX_SLEEP_SECONDS``."""
        import asyncio  # noqa: PLC0415 - it takes its time to load, and a cache is read without it

        await asyncio.sleep(min(seconds, MAX_SLEEP_SECONDS))


async def wait_until(clock: Clock, when: datetime) -> None:
    """Wait until ``clock`` shows ``when`` or later."""
    while (left := when - clock.now()) > timedelta():
        await clock.sleep(left.total_seconds())
