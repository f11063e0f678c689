"""The database's clock, which all processes that share a database go by."""

from __future__ import annotations

from typing import Final, Protocol

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.sql.clock import Clock, ServiceClock
from lessor_server.adapters.sql.transaction import Transaction, require_row

SYNC_SECONDS: Final = 5.0
MAX_STEP_US: Final = 2_000_000
"""The greatest difference of two clocks that is taken for drift, and followed."""


class BootClock(Protocol):
    """The machine's clock that no administrator sets."""

    def boot_us(self) -> int:
        """Return the time since the machine started, in microseconds."""
        ...


class DatabaseClock(Clock, Protocol):
    """The clocks of a store, which may have to be synchronised."""

    async def sync(self, tx: Transaction) -> None:
        """Ask the database for its time."""
        ...


class SharedTime(ServiceClock):
    """The service's time of processes that share a database, whose clock they follow."""

    _floor_us = 0

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch; it never goes back."""
        return max(super().now(), self._floor_us)

    def lower(self) -> int:
        """Set the service's time to the database's clock, and return it."""
        self._floor_us = 0
        return super().lower()

    def follow(self) -> None:
        """Follow the database's clock, unless somebody has set it."""
        drift_us = self.drift_us()
        if abs(drift_us) <= MAX_STEP_US:
            self._floor_us = self.now()
            self._offset_us += drift_us


class DatabaseWall:
    """Estimates the database's wall clock from its last answer and the boot-time clock of this machine.

    The answer was given between the question and its arrival, so the estimate is at most half of that off.
    """

    def __init__(self, clock: BootClock) -> None:
        """Advance with ``clock``."""
        self._clock = clock
        self._offset_us = 0

    def wall_us(self) -> int:
        """Return the database's time since the epoch, in microseconds."""
        return self._clock.boot_us() + self._offset_us

    def boot_us(self) -> int:
        """Return the time since this machine started, in microseconds."""
        return self._clock.boot_us()

    async def sync(self, tx: Transaction) -> None:
        """Ask the database for its time."""
        before = self._clock.boot_us()
        database_us = int((await require_row(tx, own.CLOCK, {}))[0])
        after = self._clock.boot_us()
        low, high = database_us - after, database_us - before
        if not low <= self._offset_us <= high:
            self._offset_us = (low + high) // 2
