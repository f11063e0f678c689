"""Options of one run: a seed draws all of them, and a failing run is shrunk by removing some."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Durations are in seconds; counts say how often something happens before the faults end."""

    seed: int = 0
    span: float = 120.0
    """How long faults and callers go on."""
    latency: float = 0.05
    """Of a call to AWS; each takes between half and one and a half of it."""
    commit: float = 0.002
    """How long the store needs to make a batch of writes durable."""
    visible: float = 0.0
    """How long AWS does not show a new user, at most."""
    bound: bool = True
    """The mounts' roots know their account from the start."""
    replicas: int = 1
    """How many processes serve, on one store."""
    rate: float = 0.0
    """The setting ``aws.rate`` of several replicas, in calls a second; 0 is none."""

    callers: int = 4
    requests: float = 0.0
    """The share of callers who send a request id, and repeat it."""
    leaving: float = 0.0
    """The share of callers who go away before they are answered."""
    sessions: float = 0.0
    """The share of callers who ask for a session of STS."""
    proving: float = 0.0
    """The share of callers who wait until the key is usable."""
    renewals: float = 0.5
    revocations: float = 0.3

    tenants: int = 0
    """How many identities with several leases and limits of rules there are."""
    bursts: int = 0
    """How often one of them asks for several credentials at the same time."""
    reaches: int = 0
    """How often one of them reaches for a lease that may be another's."""
    owned_prefixes: int = 0
    """How often all leases of one of them are revoked."""

    prefixes: int = 0
    disables: int = 0
    abandons: int = 0
    handovers: int = 0
    roots: int = 0
    sweeps: int = 0
    holds: int = 0
    tunings: int = 0

    touches: int = 0
    """How many users somebody changes from outside."""
    orphans: int = 0
    """How many users of ours appear that no row knows."""

    faults: float = 0.0
    """The share of calls to AWS that meet a fault."""
    refusals: float = 0.0
    """The share of calls to AWS that are refused without a reason."""
    outages: int = 0
    storms: int = 0
    """How often AWS throttles all calls for a while."""
    kills: int = 0
    """How often a process dies, for each replica."""
    pauses: int = 0
    """How often a process is stopped, for 20 minutes at most, for each replica."""
    sleeps: int = 0
    """How often the whole machine sleeps: the loop's clock stands still."""
    jumps: int = 0
    """How often the wall clock jumps, by an hour at most."""
    disk_faults: int = 0
    """How often the store refuses to write for a while."""
    week: bool = False
    """A week passes at the end, and the tombstones must go."""

    def __str__(self) -> str:
        """Return the options that differ from a plain run."""
        plain = Options()
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != getattr(plain, field.name):
                parts.append(
                    f"{field.name}={value:.3g}" if isinstance(value, float) else f"{field.name}={value}"
                )
        return " ".join(parts) or "seed=0"

    def rng(self, part: str) -> random.Random:
        """Return the random generator of one part of the run, which does not depend on the other parts."""
        return random.Random(f"{self.seed}/{part}")

    def begins(self, caller: int) -> float:
        """Return when a caller begins."""
        return self.span * _drawn(f"{self.seed}/begins/{caller}")

    def moment(self, rng: random.Random) -> float:
        """Return when something happens: half of the time while a caller is being served."""
        if rng.random() < 0.5:
            return rng.uniform(0.0, self.span)
        served = 6 * self.latency + 2 * self.commit
        return self.begins(rng.randrange(self.callers)) + rng.uniform(0.0, served)


@functools.lru_cache(maxsize=64)
def _drawn(text: str) -> float:
    """Return a number below 1; to seed a generator for it takes long, and each is asked for several times."""
    return random.Random(text).random()


def _some(rng: random.Random, chance: float, most: int) -> int:
    return rng.randint(1, most) if rng.random() < chance else 0


def _share(rng: random.Random, chance: float, most: float) -> float:
    return round(rng.uniform(0.01, most), 3) if rng.random() < chance else 0.0


def draw(seed: int) -> Options:
    """Return the options of a seed."""
    rng = random.Random(f"{seed}/options")
    some, share = partial(_some, rng), partial(_share, rng)
    drawn = Options(
        seed=seed,
        span=float(rng.choice((60, 120, 300, 900))),
        latency=rng.choice((0.02, 0.05, 0.2)),
        commit=rng.choice((0.001, 0.01, 0.05)),
        visible=rng.choice((0.0, 0.0, 2.0, 10.0, 30.0)),
        bound=rng.random() < 0.7,
        callers=rng.choice((1, 2, 4, 8, 12, 16)),
        requests=share(0.4, 1.0),
        leaving=share(0.35, 0.9),
        proving=share(0.1, 0.5),
        renewals=share(0.5, 0.9),
        revocations=share(0.5, 0.8),
        prefixes=some(0.3, 2),
        disables=some(0.12, 1),
        abandons=some(0.06, 1),
        handovers=some(0.08, 1),
        roots=some(0.12, 2),
        sweeps=some(0.15, 2),
        holds=some(0.08, 1),
        tunings=some(0.1, 2),
        touches=some(0.2, 3),
        orphans=some(0.08, 1),
        faults=share(0.4, 0.3),
        refusals=share(0.1, 0.1),
        outages=some(0.12, 2),
        storms=some(0.1, 1),
        kills=some(0.4, 4),
        pauses=some(0.2, 2),
        sleeps=some(0.1, 2),
        jumps=some(0.12, 2),
        disk_faults=some(0.1, 1),
        week=rng.random() < 0.05,
        replicas=rng.choices((1, 2, 3), (60, 25, 15))[0],
    )
    return _widened(drawn)


def _widened(options: Options) -> Options:
    """Return a run with sessions and, with several replicas, more of the faults that concern only these."""
    options = _with_tenants(replace(options, sessions=_share(options.rng("sessions"), 0.3, 0.8)))
    if options.replicas == 1:
        return options
    rng = options.rng("options of replicas")
    some, share = partial(_some, rng), partial(_share, rng)
    return replace(
        options,
        requests=share(0.6, 1.0),
        leaving=share(0.5, 0.9),
        holds=some(0.25, 2),
        kills=some(0.4, 2),
        pauses=some(0.4, 2),
        jumps=some(0.35, 2),
        proving=share(0.25, 0.5),
        rate=options.rng("rate").choice((0.0, 0.0, 60.0)),
    )


def _with_tenants(options: Options) -> Options:
    """Return a run that has tenants in one of three cases."""
    rng = options.rng("tenants")
    if rng.random() >= 0.35:
        return options
    return replace(
        options,
        tenants=rng.randint(2, 4),
        bursts=rng.randint(1, 5),
        reaches=rng.randint(1, 12),
        owned_prefixes=_some(rng, 0.5, 3),
    )


_SPANS = ("seed", "span", "latency", "commit", "bound", "callers")


def smaller(options: Options) -> Iterator[Options]:
    """Yield runs that are one step simpler: with one option removed or halved."""
    plain = Options(renewals=0.0, revocations=0.0)
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in _SPANS or value == getattr(plain, field.name):
            continue
        yield replace(options, **{field.name: getattr(plain, field.name)})
        if isinstance(value, int) and value > 1:
            yield replace(options, **{field.name: value - 1})
    if options.callers > 1:
        yield replace(options, callers=options.callers - 1)
