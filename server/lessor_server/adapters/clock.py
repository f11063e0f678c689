"""The machine's clocks: wall time, and boot time, which cannot be set and continues during sleep."""

from __future__ import annotations

import time


class SystemClock:
    """Reads the machine's clocks in microseconds."""

    def wall_us(self) -> int:
        """Return the wall clock's time since the epoch; it may jump."""
        return time.time_ns() // 1000

    def wall(self) -> float:
        """Return the wall clock's time in seconds since the epoch; it may jump."""
        return time.time()

    def boot_us(self) -> int:
        """Return the time since the machine started, sleep included (clock_gettime(2), CLOCK_BOOTTIME)."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
