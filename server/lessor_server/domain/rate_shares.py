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
START_FRACTION: Final = 0.02
"""The fraction of the rate that is kept for the replicas without demand, all together."""
MARGIN: Final = 0.044
"""The fraction of a rate that is not used, as calls take different times to arrive; see ``shared_rate``."""
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


def start_reserve(rate: float) -> float:
    """Return what is kept for replicas whose load begins: 2 % of the rate, at least one call a second."""
    return float(max(1, math.floor(rate * START_FRACTION))) if rate >= 2 else 0.0


def min_share(rate: float, busy: int) -> float:
    """Return the smallest share of a replica with demand: one call a second, or an equal part if fewer."""
    return 1.0 if rate >= busy else rate / busy


def shares_by_demand(rate: float, demands: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each replica: max-min fair, and nothing for one without demand.

    Small demands are met; of the others none has less than another (Bertsekas & Gallager, Data Networks,
    6.5.2). What nobody needs is divided in proportion to the demands. As long as one has no demand,
    ``start_reserve`` is left. Several shares are whole numbers if the rate allows it, because calls are: a
    replica with 6.3 calls a second would send 7 in some seconds.
    """
    if len(demands) <= 1:
        return dict.fromkeys(demands, rate)
    busy = {name: demand for name, demand in demands.items() if demand > 0}
    shares = dict.fromkeys(demands, 0.0)
    if not busy:
        return shares
    usable = rate - _kept_for_starts(rate, demands)
    least = min_share(usable, len(busy))
    whole = usable >= len(busy)
    spare = (math.floor(usable) if whole else usable) - least * len(busy)
    parts = _fill(spare, {name: max(demand - least, 0.0) for name, demand in busy.items()})
    if not whole:
        return shares | {name: least + part for name, part in parts.items()}
    left = round(spare) - sum(math.floor(part) for part in parts.values())
    largest = sorted(parts, key=lambda name: (math.floor(parts[name]) - parts[name], name))[: max(left, 0)]
    return shares | {name: least + math.floor(part) + (name in largest) for name, part in parts.items()}


def _kept_for_starts(rate: float, demands: Mapping[str, float]) -> float:
    """Return what is left for replicas whose load may begin; nothing if all have demand."""
    return start_reserve(rate) if len(demands) > 1 and not all(demands.values()) else 0.0


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

    The rate is the lowest of the replicas' settings. A live replica that has not asked for this account has
    no demand. One whose load begins takes half of what nobody has reserved, so that another one can begin
    as well. Each may keep what it has reserved.
    """
    valid = [row for row in stored if row.until_us > now_us]
    others = [row for row in valid if row.replica != replica]
    rate = min(asked.rate, *(row.rate for row in others)) if others else asked.rate
    names = {replica, *live, *(row.replica for row in others)}
    demands = dict.fromkeys(sorted(names), 0.0) | {row.replica: row.demand for row in others}
    demands[replica] = max(asked.demand, 0.0)
    wanted = shares_by_demand(rate, demands)[replica]
    kept_for_starts = _kept_for_starts(rate, demands)
    available = rate - sum(row.reserved for row in others)
    reserved = sum(row.reserved for row in valid if row.replica == replica)
    start = max(min(available, 1.0), math.floor(available / 2)) if not reserved else 0.0
    share = max(min(wanted, max(available - kept_for_starts, reserved, start), available), 0.0)
    if len(names) > 1 and rate >= sum(demand > 0 for demand in demands.values()):
        share = float(math.floor(share + 1e-9))
    row = StoredShare(
        replica,
        asked.account,
        asked.rate,
        demands[replica],
        share,
        max(share, asked.using),
        now_us + int(RESERVED_SECONDS * 1e6),
    )
    small = (row.share for row in others if row.share <= 1 and row.demand <= row.share / 2)
    idle = kept_for_starts + sum(small)
    margin = max(MARGIN - idle / rate, MIN_MARGIN)
    return row, GrantedShare(asked.account, share, wanted, margin)
