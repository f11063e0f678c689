"""The service's time on SQLite: it never runs back, whatever is done to the wall clock.

It is the greater of the wall clock at the start and the latest time the store remembers, and from there
on the boot-time clock carries it.
"""

from __future__ import annotations

import sqlite3
from typing import Protocol

from lessor_server.adapters.sqlite import statements as sql
from lessor_server.adapters.sqlite.columns import MAX_START_US, Reader

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


class ServiceClock:
    """Returns the service's time and keeps its high-water mark in the store."""

    def __init__(self, clock: Clock, mark_us: int) -> None:
        """Continue from ``mark_us``, the latest time the store remembers."""
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
        """Take the wall clock for the service's time, and return it."""
        self._offset_us = self._clock.wall_us() - self._clock.boot_us()
        self._marked_us = self.now()
        return self._marked_us

    def mark(self, connection: sqlite3.Connection) -> None:
        """Write the time down with a commit that is under way, at most once in five seconds."""
        now = self.now()
        if now - self._marked_us >= MARK_EVERY_US:
            connection.execute(sql.PUT_META, {"key": MARK, "value": mark_of(now)})
            self._marked_us = now

    def unmark(self) -> None:
        """Take note that a commit has failed: what it wrote down is lost, so the next one writes the time."""
        self._marked_us = 0


def mark_of(now_us: int) -> str:
    """Return what is stored of the service's time: a start takes no later time than ``MAX_START_US``."""
    return str(min(now_us, MAX_START_US))


def stored_mark(reader: Reader, connection: sqlite3.Connection) -> int:
    """Return the latest time that the store remembers, or 0 where it was never used."""
    row = connection.execute(sql.GET_META, {"key": MARK}).fetchone()
    if row is None:
        return 0
    try:
        mark_us = int(row[0])
    except (TypeError, ValueError):
        mark_us = 0
    if 0 < mark_us <= MAX_START_US:
        return mark_us
    reader.note("meta", MARK, "is not a valid time")
    # No time before that of the newest lease can be now. Never 0: this is no first start.
    newest: int = connection.execute(sql.NEWEST, {"max_us": MAX_START_US}).fetchone()[0]
    return newest
