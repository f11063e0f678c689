"""The invariant of the rate that several replicas share, checked at each call that is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.journal import ALL
from tests.simulation.row_invariants import Found

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.wire import Flight
    from tests.simulation.world import World

SECOND = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class SentCall:
    """One call to an account; it is ``extra`` if its process has no valid share."""

    at: float
    account: str
    process: int
    extra: bool


def the_rate_is_kept(world: World, sent: tuple[Process, Flight]) -> Found:
    """No second has more calls than the rate, and one of each process without a valid share."""
    process, flight = sent
    account = world.account_with(flight.key_id).account
    now = world.now()
    shares = [share for name, share in process.shares.items() if name.endswith(account)]
    extra = bool(shares) and not any(share and until > now for share, until in shares)
    world.calls.append(SentCall(now, account, process.number, extra))
    while world.calls[0].at <= now - SECOND:
        world.calls.popleft()
    calls = [one for one in world.calls if one.account == account]
    within = sum(not one.extra for one in calls)
    if within > world.options.rate:
        return ALL, f"{within} calls were sent in a second"
    alone = sum(one.extra and one.process == process.number for one in calls)
    if alone > 1:
        return ALL, f"process {process.number} sent {alone} calls in a second without a share"
    return None


ON_SENT = (the_rate_is_kept,)
