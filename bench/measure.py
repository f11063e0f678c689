"""Takes the measurements: variants take turns, round by round, each turn with the CPU its process took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import cast

from tests.support.standin_control import ask

from bench.children import Child, Json
from bench.server import NO_SDK, NO_STORE
from bench.setting import FEW, MANY, PLAIN_ROLE, RICH_ROLE, Setting

CLIENTS = (1, 8, 32)
MAX_CLIENTS = CLIENTS[-1]
EMPTY, PEER, RULED = "empty", "plain aioboto3", "by a caller with rules"
AWS_SECONDS = 0.05
"""The time that AWS takes over each call where latency is measured."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long a measurement is: rounds, credentials a turn, leases that one server begins with."""

    rounds: int
    credentials: int
    leases: int


FULL, QUICK = Size(7, 400, 6000), Size(2, 150, 1000)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: milliseconds of CPU for each call, and calls a second."""

    cpu_ms: float
    rate: float


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured; ``turns`` by (what, clients) in the order of the rounds, ``leases`` by variant.

    A server's leases are how many it held halfway through the rounds.
    """

    size: Size
    turns: dict[tuple[str, int], list[Turn]] = field(default_factory=lambda: defaultdict(list))
    leases: dict[str, int] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    revocation_calls: dict[str, int] = field(default_factory=dict)

    def cpu_ms(self, what: str, clients: int = MAX_CLIENTS) -> float:
        """Return the median CPU of a call in milliseconds."""
        return median(turn.cpu_ms for turn in self.turns[what, clients])

    def rate(self, what: str, clients: int = MAX_CLIENTS) -> float:
        """Return the median calls a second."""
        return median(turn.rate for turn in self.turns[what, clients])

    def ratio(self, what: str, to: str, clients: int = MAX_CLIENTS) -> float:
        """Return the median of the rounds' own ratios, so that a machine that drifts weighs on both."""
        pairs = zip(self.turns[what, clients], self.turns[to, clients], strict=True)
        return median(one.cpu_ms / other.cpu_ms for one, other in pairs)

    def share(self, what: str, without: str) -> float:
        """Return the median of the rounds' differences, in milliseconds a credential."""
        pairs = zip(self.turns[what, MAX_CLIENTS], self.turns[without, MAX_CLIENTS], strict=True)
        return median(one.cpu_ms - other.cpu_ms for one, other in pairs)


def measure(setting: Setting, size: Size) -> Results:
    """Fill one server with leases, let all variants warm up, and take every measurement."""
    results = Results(size)
    _load(setting, MANY, PLAIN_ROLE, MAX_CLIENTS, size.leases)
    _round(setting, Results(size), size.credentials // 4)
    for number in range(size.rounds):
        if number == size.rounds // 2:
            results.leases.update({variant: setting.leases(variant) for variant in (FEW, MANY)})
        _round(setting, results, size.credentials)
    ask(setting.aws, "POST", "latency", {"seconds": AWS_SECONDS})
    for _ in range(size.rounds):
        results.latency_ms.append(_load(setting, FEW, RICH_ROLE, 1, 10)["p50_ms"])
    ask(setting.aws, "DELETE", "calls")
    setting.revoke_one()
    results.revocation_calls.update(cast("dict[str, int]", ask(setting.aws, "GET", "totals")["totals"]))
    return results


def _round(setting: Setting, results: Results, credentials: int) -> None:
    """Give each variant one turn; a cheap one makes more calls, since the CPU is told in ticks of 10 ms."""
    for clients in CLIENTS:
        count = credentials if clients == MAX_CLIENTS else credentials // 2
        _turn(setting, results, FEW, PLAIN_ROLE, clients, count)
        _turn(setting, results, FEW, EMPTY, clients, 4 * count)
    with _timed(setting.servers[FEW][0], results.turns[RULED, MAX_CLIENTS], credentials):
        _load(setting, FEW, PLAIN_ROLE, MAX_CLIENTS, credentials, as_root=False)
    _turn(setting, results, MANY, PLAIN_ROLE, MAX_CLIENTS, credentials)
    _turn(setting, results, NO_SDK, PLAIN_ROLE, MAX_CLIENTS, 2 * credentials)
    _turn(setting, results, NO_STORE, PLAIN_ROLE, MAX_CLIENTS, 3 * credentials)
    with _timed(setting.plain, results.turns[PEER, MAX_CLIENTS], credentials):
        setting.plain.ask({"clients": MAX_CLIENTS, "count": credentials})


def _turn(setting: Setting, results: Results, variant: str, call: str, clients: int, count: int) -> None:
    what = EMPTY if call == EMPTY else variant
    with _timed(setting.servers[variant][0], results.turns[what, clients], count):
        _load(setting, variant, call, clients, count)


@contextmanager
def _timed(process: Child, turns: list[Turn], count: int) -> Iterator[None]:
    """Note what ``count`` calls in the block cost ``process``."""
    cpu, start = process.cpu_seconds(), time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    turns.append(Turn((process.cpu_seconds() - cpu) * 1e3 / count, count / seconds))


def _load(
    setting: Setting, variant: str, call: str, clients: int, count: int, *, as_root: bool = True
) -> dict[str, float]:
    _, address = setting.servers[variant]
    order: Json = {"address": address, "call": call, "clients": clients, "count": count, "as_root": as_root}
    return cast("dict[str, float]", setting.load.ask(order))
