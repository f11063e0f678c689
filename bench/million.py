"""Rows of a million leases: memory, CPU and latency beside few leases, starts after SIGKILL, the plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.backend import RABBITMQ
from bench.children import Child
from bench.figures import Figure
from bench.issue import LESSOR, MAX_CLIENTS, OPENBAO
from bench.lessor import BARE, Lessor
from bench.plot import plot
from bench.turns import Take, Turns, by_cpu, by_p99, by_rate, take_turns
from bench.world import Size, World, asking_each, report_progress

FEW, MANY = "few", "many"
PEER_BYTES = 6_300
"""What a lease takes of OpenBao's memory, as measured before."""
_CALLERS = 8
_SHARE = 0.6
"""The part of the free memory that OpenBao may take."""


@dataclass(slots=True)
class Growth:
    """What was measured at each number of leases, for the plots: credentials a second, and resident MB."""

    rates: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, leases: int, rate: float, server: Child) -> None:
        """Note one point of a server's lines."""
        megabytes = server.resident_bytes() / 1e6
        self.rates.setdefault(name, []).append((leases, rate))
        self.memory.setdefault(name, []).append((leases, megabytes))
        report_progress(f"{name} with {leases:,} leases: {rate:,.0f} a second, {megabytes:,.0f} MB")


def growth(world: World, size: Size) -> Iterator[Figure]:
    """Measure at each number of leases, beside OpenBao as far as it fits; at the last, beside few leases."""
    few, _ = world.filled(FEW, BARE, size.growth[0])
    points, reached = Growth(), _fits(size.growth)
    many, requests = world.lessor(MANY), max(size.requests // 4, MAX_CLIENTS)
    for leases in size.growth:
        if (missing := leases - many.leases()) > 0:
            many, _ = world.filled(MANY, BARE, missing)
        variants = {LESSOR: world.issuing(many, BARE, MAX_CLIENTS, requests)}
        if leases <= reached:
            world.fill_openbao(leases)
            variants[OPENBAO] = world.issuing_peer(MAX_CLIENTS, requests)
        turns = take_turns(size.rounds, variants)
        points.add(LESSOR, many.leases(), turns.middle(LESSOR, by_rate), many.child)
        if leases <= reached:
            points.add(OPENBAO, world.living(RABBITMQ), turns.middle(OPENBAO, by_rate), world.openbao().child)
    if reached:
        world.end("openbao")
    _write_plots(points, reached, size.plots)
    yield from _beside_few(world, few, many, size)


def _fits(sizes: Sequence[int]) -> int:
    """Return the greatest of the sizes at which OpenBao's memory fits into this machine."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max((leases for leases in sizes if leases * PEER_BYTES < free * _SHARE), default=0)


def _write_plots(points: Growth, reached: int, folder: Path) -> None:
    ends = f"OpenBao's line ends at {reached:,}: with more it does not fit into this machine's memory"
    note = "" if len(points.rates.get(OPENBAO, ())) == len(points.rates[LESSOR]) else ends
    folder.mkdir(parents=True, exist_ok=True)
    for name, title, y_label, lines in (
        ("rate", "Credentials a second by live leases, 32 clients, 2 calls each", "a second", points.rates),
        ("memory", "Resident memory by live leases", "MB", points.memory),
    ):
        drawn = plot(title, "live leases", y_label, lines, note)
        (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")


def _beside_few(world: World, few: Lessor, many: Lessor, size: Size) -> Iterator[Figure]:
    """Compare the two servers in turns, issue, renewal and look-up; then memory, as caches have filled."""
    for name, takes in _calls(world, few, many, size).items():
        turns = take_turns(size.rounds, takes)
        yield from _growth_of(name, turns, many.leases())
    grown = many.child.resident_bytes() - few.child.resident_bytes()
    leases = many.leases() - few.leases()
    yield Figure(
        "resident memory of a live lease",
        grown / leases,
        "bytes",
        must=100,
        more_is_better=False,
        seen=f"{grown / 1e6:,.0f} MB more with {leases:,} leases more",
    )


def _calls(world: World, few: Lessor, many: Lessor, size: Size) -> dict[str, dict[str, Take]]:
    servers = {MANY: many, FEW: few}
    issues = {
        name: world.issuing(server, BARE, MAX_CLIENTS, size.requests) for name, server in servers.items()
    }
    renewals: dict[str, Take] = {}
    lookups: dict[str, Take] = {}
    for name, server in servers.items():
        ids = [server.issue_one(BARE) for _ in range(_CALLERS)]
        renewals[name] = asking_each(
            server.child, [server.renew(lease_id) for lease_id in ids], 2 * size.requests
        )
        lookups[name] = asking_each(
            server.child, [server.lookup(lease_id) for lease_id in ids], 2 * size.requests
        )
    return {"an issue": issues, "a renewal": renewals, "a look-up": lookups}


def _growth_of(name: str, turns: Turns, leases: int) -> Iterator[Figure]:
    yield Figure(
        f"CPU of {name} with many leases, beside few",
        turns.ratio(MANY, FEW, by_cpu),
        must=1.1,
        more_is_better=False,
        seen=f"{turns.beside(MANY, FEW, by_cpu, 'ms')}; {leases:,} leases",
    )
    yield Figure(
        f"p99 of {name} with many leases, beside few",
        turns.ratio(MANY, FEW, by_p99),
        must=2.0 if name == "an issue" else None,
        more_is_better=False,
        seen=turns.beside(MANY, FEW, by_p99, "ms"),
    )


def starts(world: World, size: Size) -> Iterator[Figure]:
    """Measure starts after SIGKILL with many leases and with a hundredth, in turns."""
    counts = {MANY: size.growth[-1], "fewer": max(size.growth[-1] // 100, 1)}
    world.filled("fewer", BARE, counts["fewer"])
    if not world.path(MANY).exists():
        world.filled(MANY, BARE, counts[MANY])
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(size.rounds + 1):
        for name, found in seconds.items():
            server = world.lessor(name)
            server.issue_one(BARE)
            server.kill()
            world.end(name)
            found.append(world.lessor(name).start_seconds)
    medians = {name: median(found[1:]) for name, found in seconds.items()}
    yield Figure(
        f"start to serving after SIGKILL, {counts[MANY]:,} leases",
        medians[MANY],
        "s",
        must=1.0,
        more_is_better=False,
    )
    yield Figure(
        f"start beside one with {counts['fewer']:,} leases",
        median(many / few for many, few in zip(seconds[MANY][1:], seconds["fewer"][1:], strict=True)),
        must=1.2,
        more_is_better=False,
        seen=f"{medians[MANY]:.2f} beside {medians['fewer']:.2f} s",
    )
