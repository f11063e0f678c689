"""Turns: variants are measured one by one, round by round, so that a machine that drifts weighs on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.children import Child
from bench.h2load import Served


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: answers a second, milliseconds of the server's CPU each, and how long one took."""

    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


Take = Callable[[], Turn]
Read = Callable[[Turn], float]


def by_rate(turn: Turn) -> float:
    """Return the answers a second."""
    return turn.rate


def by_cpu(turn: Turn) -> float:
    """Return the CPU of one answer."""
    return turn.cpu_ms


def by_p50(turn: Turn) -> float:
    """Return the median time of an answer."""
    return turn.p50_ms


def by_p99(turn: Turn) -> float:
    """Return the time within which 99 of 100 answers came."""
    return turn.p99_ms


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of each variant, in the order of the rounds."""

    by_name: Mapping[str, list[Turn]]

    def middle(self, name: str, read: Read) -> float:
        """Return the median of the rounds."""
        return median(map(read, self.by_name[name]))

    def ratio(self, one: str, other: str, read: Read) -> float:
        """Return the median of the rounds' own ratios."""
        pairs = zip(self.by_name[one], self.by_name[other], strict=True)
        return median(read(first) / max(read(second), 1e-9) for first, second in pairs)

    def gap(self, one: str, other: str, read: Read) -> float:
        """Return the median of the rounds' own differences."""
        pairs = zip(self.by_name[one], self.by_name[other], strict=True)
        return median(read(first) - read(second) for first, second in pairs)

    def beside(self, one: str, other: str, read: Read, unit: str) -> str:
        """Return both medians as text."""
        first, second = self.middle(one, read), self.middle(other, read)
        return f"{first:,.4g} beside {second:,.4g} {unit} ({one} | {other})"


def take_turns(rounds: int, variants: Mapping[str, Take], *, warm_up: bool = True) -> Turns:
    """Give each variant a turn in each round, every second one in reverse; a warm-up does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in variants}
    if warm_up:
        for take in variants.values():
            take()
    for number in range(rounds):
        names = list(variants)
        for name in reversed(names) if number % 2 else names:
            turns[name].append(variants[name]())
    return Turns(turns)


def timed(process: Child, run: Callable[[], Served]) -> Turn:
    """Run a load and tell what it cost ``process``, the server."""
    before = process.cpu_seconds()
    served = run()
    cpu_ms = (process.cpu_seconds() - before) * 1e3 / len(served.spans)
    return Turn(served.rate, cpu_ms, served.p50_ms, served.p99_ms)
