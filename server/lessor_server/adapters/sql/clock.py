"""The service's time: it never goes back, even if the wall clock does.

It begins at the greater of the wall clock and the latest time in the store, and advances with the boot-time
clock.
"""

from __future__ import annotations

from typing import Protocol

from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.columns import MAX_START_US, Reader
from lessor_server.adapters.sql.transaction import Transaction, require_row

MARK_EVERY_US = 5_000_000
MARK = "high_water_us"


class Clock(Protocol):
    """The machine's two clocks, in microseconds."""

    def wall_us(self) -> int:
        """Return the wall clock's time since the epoch."""
        ...

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        ...


class ServiceTime(Protocol):
    """The service's time, as a store uses it."""

    first_start: bool
    """Whether the database was not used before."""

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        ...

    def drift_us(self) -> int:
        """Return how far the wall clock is ahead of the service's time."""
        ...

    def lower(self) -> int:
        """Set the service's time to the wall clock, and return it."""
        ...


class ServiceClock:
    """Returns the service's time and keeps its high-water mark in the store."""

    def __init__(self, clock: Clock, mark_us: int) -> None:
        """Continue from ``mark_us``, the latest time in the store."""
        self._clock = clock
        self._offset_us = max(clock.wall_us(), mark_us) - clock.boot_us()
        self._marked_us = mark_us
        self.first_start = mark_us == 0

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        return self._clock.boot_us() + self._offset_us

    def drift_us(self) -> int:
        """Return how far the wall clock is ahead of the service's time."""
        return self._clock.wall_us() - self.now()

    def lower(self) -> int:
        """Set the service's time to the wall clock, and return it."""
        self._offset_us = self._clock.wall_us() - self._clock.boot_us()
        self._marked_us = self.now()
        return self._marked_us

    async def mark(self, tx: Transaction) -> None:
        """Store the time in the current commit, at most once in five seconds."""
        now = self.now()
        if now - self._marked_us >= MARK_EVERY_US:
            await tx.change(sql.PUT_META, {"key": MARK, "value": mark_of(now)})
            self._marked_us = now

    def unmark(self) -> None:
        """Record that a commit has failed, so that the next one stores the time."""
        self._marked_us = 0


def mark_of(now_us: int) -> str:
    """Return the time to store, at most ``MAX_START_US``, which limits the time at a start."""
    return str(min(now_us, MAX_START_US))


async def read_mark(reader: Reader, tx: Transaction) -> int:
    """Return the latest time in the store, or 0 if it was never used."""
    row = await tx.row(sql.GET_META, {"key": MARK})
    if row is None:
        return 0
    try:
        mark_us = int(row[0])
    except (TypeError, ValueError):
        mark_us = 0
    if 0 < mark_us <= MAX_START_US:
        return mark_us
    reader.note("meta", MARK, "is not a valid time")
    # The time is at least that of the newest lease, and not 0, which would mean a first start.
    newest: int = (await require_row(tx, sql.NEWEST, {"max_us": MAX_START_US}))[0]
    return newest
