"""The result of many runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """The result of some runs; ``faults`` are journals, ready to print."""

    runs: int = 0
    two: int = 0
    three: int = 0
    """How many of the runs had two replicas, and how many three."""
    effects: int = 0
    seconds: float = 0.0
    faults: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(
            self.runs + other.runs,
            self.two + other.two,
            self.three + other.three,
            self.effects + other.effects,
            self.seconds + other.seconds,
            self.faults + other.faults,
        )
