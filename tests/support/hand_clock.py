"""A clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass

START_US = 1_900_000_000_000_000


@dataclass(slots=True)
class HandClock:
    """The machine's clocks, in microseconds, moved by hand."""

    wall: int = START_US
    boot: int = 5_000_000

    def wall_us(self) -> int:
        """Return the wall clock's time."""
        return self.wall

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        return self.boot

    def advance(self, seconds: float) -> None:
        """Let time pass on both."""
        self.wall += int(seconds * 1e6)
        self.boot += int(seconds * 1e6)
