"""Renews leases within some milliseconds of their expiry, where renewal and revocation meet."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import grpc

from tests.fire.environment import (
    BOUND,
    COARSE,
    MOUNT,
    Environment,
    Figures,
    cuts,
    each,
    now,
    sleep_until,
    user_of,
)
from tests.support.clients import Lessor, Refusal

SECONDS = 2
"""What each renewal asks for."""
A_GROUP = 50
"""Leases that end at about the same instant."""
AIM, BEFORE = 0.05, 0.03
"""Seconds around the expiry where a renewal is sent; seconds before a full second where the expiry lies."""
REASONS = {"LEASE_EXPIRED", "LEASE_REVOKING", "NOT_FOUND"}


@dataclass(frozen=True, slots=True)
class Try:
    """One renewal: the expiry before, and the one that was answered, or 0 where it was refused."""

    user: str
    before: float
    after: float


async def renewals(environment: Environment, count: int, rng: random.Random) -> Figures:
    """Renew ``count`` leases at their expiry; AssertionError where an answer was not what AWS then saw.

    The expiries lie just before a full second, where the timer's slots end and leases are claimed.
    """
    tries: list[Try] = []
    async with environment.connect() as lessor:
        for begun in range(0, count, A_GROUP):
            few = range(begun, min(begun + A_GROUP, count))
            await each(few, lambda _: _one(lessor, tries, rng), A_GROUP)
    renewed = [one for one in tries if one.after]
    await sleep_until(max(max(one.before, one.after) for one in tries) + BOUND)
    cut = await cuts(environment.aws)
    for one in tries:
        end = one.after or one.before
        assert one.user in cut, f"{one} is not cut"
        assert end - COARSE <= cut[one.user] <= end + BOUND, f"{one} was cut at {cut[one.user]:.3f}"
    latest = max(cut[one.user] - (one.after or one.before) for one in tries)
    return {"renewed": len(renewed), "refused": len(tries) - len(renewed), "latest cut s": round(latest, 3)}


async def _one(lessor: Lessor, tries: list[Try], rng: random.Random) -> None:
    """Issue a lease that ends near a full second, and renew it then."""
    made = await lessor.generate(MOUNT, ttl=30)
    full = math.ceil(now() + 0.3)
    await sleep_until(full - rng.uniform(0, BEFORE))
    before = (await lessor.renew(made.lease_id, SECONDS)).expire_time.ToMicroseconds() / 1e6
    await sleep_until(before + rng.uniform(-AIM, AIM) - 0.005)
    after = 0.0
    try:
        after = (await lessor.renew(made.lease_id, SECONDS)).expire_time.ToMicroseconds() / 1e6
    except grpc.aio.AioRpcError as error:
        if Refusal.of(error).reason not in REASONS:
            raise
    tries.append(Try(user_of(made), before, after))
