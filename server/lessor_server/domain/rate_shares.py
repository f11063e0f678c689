"""Divides the rate of an account among the replicas of one store.

Each replica takes its own share, in one transaction of the store that sees the shares of all others. What a
replica may still send by an older, larger share stays reserved until it has given that up or until it ends,
so the reserved shares never add up to more than the rate. Rates, shares and demands are in calls a second.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SHARE_SECONDS: Final = 10.0
"""How long a replica may use a share, from when it asked for it."""
RESERVED_SECONDS: Final = SHARE_SECONDS + 2.0
"""How long the store reserves a share, from its commit: the replica's last calls count a second longer."""
MIN_FRACTION: Final = 0.02
"""The fraction of the rate that a replica without demand has."""
MARGIN: Final = 0.041
"""The fraction of a rate that is not used, as calls take different times to arrive; see ``rate_limiter``."""
MIN_MARGIN: Final = 0.001


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """What one replica asks for: ``rate`` is its setting, ``demand`` what it could use.

    ``using`` is the most that it may have sent in the last second or may still send, by its share until now.
    """

    account: str
    rate: float
    demand: float
    using: float


@dataclass(frozen=True, slots=True)
class StoredShare:
    """A replica's share as the store keeps it; ``reserved`` is no longer valid at ``until_us``."""

    replica: str
    account: str
    rate: float
    demand: float
    share: float
    reserved: float
    until_us: int


@dataclass(frozen=True, slots=True)
class GrantedShare:
    """A replica's new share.

    ``wanted`` is what it will have once the others have given up theirs; ``margin`` is the fraction of the
    share that it leaves unused.
    """

    account: str
    share: float
    wanted: float
    margin: float


def min_share(rate: float, replicas: int) -> float:
    """Return the smallest share: 2 % of the rate, but with many replicas an equal part.

    It is a whole number if the rate has at least one call a second for each replica.
    """
    if rate >= replicas:
        return float(min(max(1, math.ceil(rate * MIN_FRACTION)), math.floor(rate) // replicas))
    return rate / replicas


def shares_by_demand(rate: float, demands: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each replica: at least the smallest one, and max-min fair.

    Small demands are met; of the others none has less than another (Bertsekas & Gallager, Data Networks,
    6.5.2). What nobody needs is divided in proportion to the demands. Several shares are whole numbers if the
    rate allows it, because calls are: a replica with 6.3 calls a second would send 7 in some seconds.
    """
    if len(demands) <= 1:
        return dict.fromkeys(demands, rate)
    least = min_share(rate, len(demands))
    whole = rate >= len(demands)
    spare = (math.floor(rate) if whole else rate) - least * len(demands)
    parts = _fill(spare, {name: max(demand - least, 0.0) for name, demand in demands.items()})
    if not whole:
        return {name: least + part for name, part in parts.items()}
    left = round(spare) - sum(math.floor(part) for part in parts.values())
    largest = sorted(parts, key=lambda name: (math.floor(parts[name]) - parts[name], name))[: max(left, 0)]
    return {name: least + math.floor(part) + (name in largest) for name, part in parts.items()}


def _fill(spare: float, needs: Mapping[str, float]) -> dict[str, float]:
    """Divide all of ``spare``: first up to the needs, max-min fair, then in proportion to them."""
    total = sum(needs.values())
    if total <= spare:
        surplus, count = spare - total, len(needs)
        return {
            name: need + surplus * (need / total if total > 0 else 1 / count) for name, need in needs.items()
        }
    parts: dict[str, float] = {}
    for name in sorted(needs, key=lambda one: needs[one]):
        parts[name] = min(needs[name], (spare - sum(parts.values())) / (len(needs) - len(parts)))
    return parts


def grant_share(
    replica: str, asked: ShareRequest, stored: Sequence[StoredShare], live: Collection[str], now_us: int
) -> tuple[StoredShare, GrantedShare]:
    """Return the replica's new row and share; ``stored`` are the rows of the account, ``live`` all replicas.

    The rate is the lowest of the replicas' settings. A live replica that has not asked for this account can
    do so at any time, and then finds the smallest share free.
    """
    others = [row for row in stored if row.replica != replica and row.until_us > now_us]
    rate = min(asked.rate, *(row.rate for row in others)) if others else asked.rate
    names = {replica, *live, *(row.replica for row in others)}
    demands = dict.fromkeys(sorted(names), 0.0) | {row.replica: row.demand for row in others}
    demands[replica] = max(asked.demand, 0.0)
    wanted = shares_by_demand(rate, demands)[replica]
    least = min_share(rate, len(names)) if len(names) > 1 else 0.0
    silent = len(names) - 1 - len(others)
    free = rate - sum(row.reserved for row in others) - least * silent
    share = max(min(wanted, free), 0.0)
    if len(names) > 1 and rate >= len(names):
        share = float(math.floor(share + 1e-9))
    idle = sum(least for row in others if row.demand <= least / 2) + least * silent
    row = StoredShare(
        replica,
        asked.account,
        asked.rate,
        demands[replica],
        share,
        max(share, asked.using),
        now_us + int(RESERVED_SECONDS * 1e6),
    )
    margin = max(MARGIN - idle / rate, MIN_MARGIN)
    return row, GrantedShare(asked.account, share, wanted, margin)
