"""Scenarios in which many leases fall due: after an outage, at a fixed rate, and while issues go on."""

from __future__ import annotations

import asyncio
import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

import grpc

from lessor.v1 import lease_pb2
from tests.fire.environment import (
    MOUNT,
    Environment,
    Figures,
    Made,
    cuts,
    each,
    ends,
    no_user_of,
    now,
    sleep_until,
    user_of,
)
from tests.fire.latency import meanwhile, reads, usual
from tests.support.clients import Lessor, Refusal, refused, until
from tests.support.standin_control import Json, StandIn

GONE = lease_pb2.Lease.State.GONE
ISSUES_A_SECOND = 80.0
"""How many leases a second a scenario counts on being issued."""
ON_THE_WAY = 0.2
"""Seconds within which one call may overtake another on its own connection."""
HARMED = 10.0
"""How many times as long as usual an answer may take in a drain."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Leases by the names of their users, with their ids and expiries."""

    ids: dict[str, str]
    due: dict[str, float]

    def in_due_order(self) -> list[str]:
        """Return the users in the order in which their leases fall due."""
        return sorted(self.due, key=lambda user: self.due[user])


async def lot(lessor: Lessor, count: int, earliest: float, latest: float, rng: random.Random) -> Lot:
    """Issue so many leases that end between two instants, a second or more apart."""
    made: list[Made] = []

    async def issue(_: int) -> None:
        least, most = math.ceil(earliest - now()), math.floor(latest - now() - 0.1)
        made.append(await lessor.generate(MOUNT, ttl=rng.randint(max(least, 1), max(least, most, 1))))

    await each(range(count), issue)
    return Lot({user_of(one): one.lease_id for one in made}, {user_of(one): ends(one) for one in made})


async def none_lost(lessor: Lessor, leases: Lot) -> None:
    """Assert that every lease is over in the store too, and that no attempt was counted."""

    async def look(lease_id: str) -> None:
        lease = await until(lambda: lessor.lookup(lease_id), lambda lease: lease.state == GONE)
        assert lease.attempts == 0

    await each(leases.ids.values(), look)


async def in_order(aws: StandIn, leases: Lot) -> None:
    """Assert that access was cut in the order in which the leases fell due.

    Only calls that were on their way at the same time may have overtaken each other.
    """
    cut = [(user, at) for user, at in (await cuts(aws)).items() if user in leases.due]
    assert {user for user, _ in cut} == set(leases.due)
    latest_due = list(accumulate((leases.due[user] for user, _ in cut), max))
    late = [
        (round(at - cut[overtaker][1], 3), cut[overtaker][0], user)
        for user, at in cut
        if (overtaker := bisect_right(latest_due, leases.due[user])) < len(cut)
        and at - cut[overtaker][1] > ON_THE_WAY
    ]
    assert late == [], f"{len(late)} of {len(cut)} were overtaken, by up to {max(late)[0]} s"


# --- an outage --------------------------------------------------------------------------------------------


async def outage(environment: Environment, count: int, seconds: float, rng: random.Random) -> Figures:
    """Take AWS down for ``seconds`` while ``count`` leases fall due; AssertionError for what went wrong."""
    async with environment.connect() as lessor:
        down_at = now() + count / ISSUES_A_SECOND + 1
        leases = await lot(lessor, count, down_at + 0.5, down_at + seconds - 0.5, rng)
        ask = reads(lessor, next(iter(leases.ids.values())))
        idle = await usual(ask)
        await sleep_until(down_at)
        await environment.aws.down()
        async with meanwhile(ask) as away:
            refusals = await _refused_until(lessor, down_at + seconds)
        assert set(leases.due) <= set(await environment.aws.users("/lessor/"))
        await environment.aws.forget_calls()
        await environment.aws.up()
        up_at = now()
        async with meanwhile(ask, 0.0) as draining:
            await no_user_of(environment.aws, set(leases.due), 45)
        over_at = now()
        await in_order(environment.aws, leases)
        await none_lost(lessor, leases)
    assert median(away) < HARMED * idle
    assert median(draining) < HARMED * idle
    return {
        "refused": len(refusals),
        "recovered s": round(min((await cuts(environment.aws)).values()) - up_at, 2),
        "drained s": round(over_at - up_at, 2),
        "reads away/idle": round(median(away) / idle, 2),
        "reads draining/idle": round(median(draining) / idle, 2),
    }


async def _refused_until(lessor: Lessor, instant: float) -> list[Refusal]:
    """Request credentials, which must be refused with a retry delay, until ``instant``."""
    refusals: list[Refusal] = []
    while now() < instant:
        refusals.append(await refused(lessor.generate(MOUNT)))
        assert (refusals[-1].code, refusals[-1].reason) == (grpc.StatusCode.UNAVAILABLE, "AWS_UNAVAILABLE")
        await asyncio.sleep(0.2)
    return refusals


# --- a set rate -------------------------------------------------------------------------------------------


async def rate(environment: Environment, count: int, calls_a_second: int, rng: random.Random) -> Figures:
    """Revoke ``count`` due leases at a fixed rate, which no second may exceed and 95 % of which is used."""
    async with environment.connect() as lessor:
        due_at = now() + count / ISSUES_A_SECOND + 1
        leases = await lot(lessor, count, due_at, due_at + 1, rng)
    assert await environment.process.stop() == 0
    await sleep_until(max(leases.due.values()))
    await environment.aws.forget_calls()
    await environment.start(LESSOR_AWS_RATE=str(calls_a_second))
    await no_user_of(environment.aws, set(leases.due), 5 * count / calls_a_second + 10)
    peak = await environment.aws.peak_per_second()
    used = _used(await environment.aws.calls(), calls_a_second)
    assert peak <= calls_a_second, peak
    assert used >= 0.95, used
    await in_order(environment.aws, leases)
    return {"peak": peak, "used": round(used, 3)}


def _used(calls: list[Json], calls_a_second: int) -> float:
    """Return which share of the rate was used while revocations waited to begin."""
    at = [float(str(call["t"])) for call in calls]
    begun = [instant for instant, call in zip(at, calls, strict=True) if call["action"] == "DeleteAccessKey"]
    meanwhile_sent = sum(begun[0] < instant <= begun[-1] for instant in at)
    return meanwhile_sent / ((begun[-1] - begun[0]) * calls_a_second)


# --- a storm ----------------------------------------------------------------------------------------------


async def storm(environment: Environment, count: int, calls_a_second: int, rng: random.Random) -> Figures:
    """Let ``count`` leases fall due in one second, and issue at the same time."""
    await environment.restart(LESSOR_AWS_RATE=str(calls_a_second))
    due_at = math.ceil(now() + count / min(ISSUES_A_SECOND, calls_a_second / 4) + 3)
    async with environment.connect() as lessor:
        leases = await lot(lessor, count, due_at, due_at + 1, rng)

        async def ask() -> None:
            await lessor.generate(MOUNT)

        await ask()
        idle = await usual(ask, 15)
        assert now() < min(leases.due.values()), "issued too slowly to begin"
        await sleep_until(max(leases.due.values()))
        async with meanwhile(ask, 0.05) as issued:
            await no_user_of(environment.aws, set(leases.due), 5 * count / calls_a_second + 10)
        await in_order(environment.aws, leases)
        await none_lost(lessor, leases)
    took = max((await cuts(environment.aws)).values()) - min(leases.due.values())
    assert median(issued) < 3 * idle, (median(issued), idle)
    return {
        "drained s": round(took, 2),
        "issued meanwhile": len(issued),
        "issue idle ms": round(idle * 1e3, 1),
        "issue in storm ms": round(median(issued) * 1e3, 1),
        "peak": await environment.aws.peak_per_second(),
    }
