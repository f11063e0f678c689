"""Fetches credentials that a cache may keep: renews the lease of the cached ones, or issues new ones."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

from lessor.channel import BadConnection
from lessor.errors import Error
from lessor.leases import setback_of
from lessor.leasing.issued import Issued, Order
from lessor.leasing.refreshed import Plan, RefreshedLease, Tools
from lessor.refresh import CACHE_LEFT, MIN_CACHED_TTL, Setback

MIN_SERVED: Final = timedelta(minutes=1)
"""How long cached credentials must be valid to be served if the server can't be reached."""
REVOKE_SECONDS: Final = 10.0


class TooShort(Exception):
    """The role grants a lifetime with which each call of an SDK would need new credentials."""


async def fetch(order: Order, cached: Issued | None, tools: Tools) -> Issued:
    """Return credentials with at least 20 minutes left: renewed ones, else new ones.

    If the server can't be reached, cached ones that are still valid are returned, with a warning.

    Raises:
        Error: The server refused.
        BadConnection: The connection's settings are not usable.
        TooShort: The role grants less than 30 minutes; what was issued is revoked.
    """
    if cached is not None and cached.term.renewable and cached.term.end > tools.clock.now():
        try:
            renewed = await tools.server.renew(cached)
        except (Error, BadConnection) as error:
            if setback_of(error) is Setback.AWAY and cached.term.left(tools.clock.now()) >= MIN_SERVED:
                tools.report(f"warning: the lease of the cached credentials can't be renewed now: {error}")
                return cached
        else:
            if renewed.term.left(tools.clock.now()) >= CACHE_LEFT:
                return renewed
    return await issue_long_enough(order, cached, tools)


async def issue_long_enough(order: Order, cached: Issued | None, tools: Tools) -> Issued:
    """Issue credentials, and revoke them if they are too short; raises as ``fetch`` does."""
    lease = RefreshedLease(Plan(order), tools)
    try:
        issued = await lease.issue_first()
    except Error as error:
        if (
            cached is not None
            and setback_of(error) is Setback.AWAY
            and cached.term.left(tools.clock.now()) >= MIN_SERVED
        ):
            tools.report(f"warning: the cached credentials can't be replaced now: {error}")
            return cached
        raise
    if issued.term.ttl >= MIN_CACHED_TTL:
        return issued
    await lease.revoke_all(REVOKE_SECONDS)
    raise TooShort(
        f"role {order.role} grants {int(issued.term.ttl.total_seconds())}s. AWS's SDKs call again 15 minutes "
        "before the end, so that each call would issue new credentials; raise the role's maximum to 30m or "
        "more, or use `lessor exec`"
    )


def system_random() -> random.Random:
    """Return the random numbers of the operating system."""
    return random.SystemRandom()
