"""Steady load for a long time: memory does not grow, and store and AWS agree."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from lessor.v1 import lease_pb2
from tests.fire.environment import BOUND, MOUNT, Environment, Figures, now
from tests.fire.promises import Callers, Load
from tests.support.clients import Lessor, until

State = lease_pb2.Lease.State
LIVE = (State.INTENT, State.ACTIVE, State.REVOKING)
STEADY = Load(ttls=(1, 2, 4), increments=(1, 3), issuers=3, pause=0.08, sweeps=False)
IN_FLIGHT = 128
"""Leases that are made or revoked at the same time: by so many, store and AWS may differ for a moment."""
EVERY = 0.5


@dataclass(slots=True)
class Samples:
    """What was seen while the load went on."""

    at: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """Resident KiB of the server."""
    users: list[int] = field(default_factory=list)
    apart: int = 0
    """The most by which the leases alive in the store and the users on AWS differed."""


async def soak(
    environment: Environment, seconds: float, max_kib_a_minute: float, rng: random.Random
) -> Figures:
    """Let callers come and go for ``seconds``; AssertionError where memory grew or a lease was left.

    ``max_kib_a_minute`` bounds the slope of resident memory over the second half.
    """
    callers, samples = Callers(environment, rng, STEADY), Samples()
    async with environment.connect() as lessor:
        async with asyncio.TaskGroup() as group:
            callers.begin(group)
            until_then = now() + seconds
            while now() < until_then:
                await _sample(environment, lessor, samples)
                await asyncio.sleep(EVERY)
            callers.stop()
        await until(lambda: _alive(lessor), lambda alive: not alive, max(STEADY.ttls) + BOUND)
        assert await environment.aws.users("/lessor/") == {}
    half = len(samples.at) // 2
    slope = 60 * _slope(samples.at[half:], samples.memory[half:])
    assert callers.unheard_of == [], callers.unheard_of
    assert samples.apart <= IN_FLIGHT, samples.apart
    assert slope <= max_kib_a_minute, f"{slope:.0f} KiB a minute: {samples.memory[half:]}"
    figures: Figures = {
        "seconds": seconds,
        "leases": len(callers.promises),
        "most users": max(samples.users),
        "most apart": samples.apart,
        "first MiB": round(samples.memory[0] / 1024, 1),
        "last MiB": round(samples.memory[-1] / 1024, 1),
        "KiB a minute": round(slope),
    }
    return figures | dict(callers.outcomes)


async def _sample(environment: Environment, lessor: Lessor, samples: Samples) -> None:
    users = len(await environment.aws.users("/lessor/"))
    samples.at.append(now())
    samples.memory.append(resident(environment.process.pid))
    samples.users.append(users)
    samples.apart = max(samples.apart, abs(await _alive(lessor) - users))


async def _alive(lessor: Lessor) -> int:
    """Count the leases that the store holds to be alive."""
    answer = await lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix=f"{MOUNT}/"))
    return sum(one.count for one in answer.counts if one.state in LIVE)


def resident(pid: int) -> float:
    """Return the KiB of memory that a process holds (proc(5), statm)."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1024


def _slope(at: list[float], values: list[float]) -> float:
    """Return the slope of the line through the points with the least squares."""
    middle, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((instant - middle) ** 2 for instant in at)
    return (
        sum((instant - middle) * (value - mean) for instant, value in zip(at, values, strict=True)) / spread
    )
