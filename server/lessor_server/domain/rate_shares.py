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
    """Return the share of each replica: its demand and an equal part of what nobody needs.

    If the demands are larger than the rate, shares are max-min fair: small demands are met, and of the others
    none has less than another (Bertsekas & Gallager, Data Networks, 6.5.2). A replica without demand then has
    nothing, and ``start_reserve`` is left for all of them. Shares are whole numbers if the rate allows it,
    because calls are: a replica with 6.3 calls a second would send 7 in some seconds.
    """
    if len(demands) <= 1:
        return dict.fromkeys(demands, rate - _kept_for_starts(rate, demands))
    busy = {name: demand for name, demand in demands.items() if demand > 0}
    if not _is_scarce(rate, demands):
        part = (rate - sum(demands.values())) / len(demands)
        return _round(rate, {name: demand + part for name, demand in demands.items()})
    usable = rate - _kept_for_starts(rate, demands)
    least = min_share(usable, len(busy))
    parts: dict[str, float] = {}
    for name in sorted(busy, key=lambda one: busy[one]):
        left = usable - least * len(busy) - sum(parts.values())
        parts[name] = min(max(busy[name] - least, 0.0), left / (len(busy) - len(parts)))
    unused = (usable - least * len(busy) - sum(parts.values())) / max(len(parts), 1)
    shares = {name: least + part + unused for name, part in parts.items()}
    return dict.fromkeys(demands, 0.0) | (_round(usable, shares) if usable >= len(busy) else shares)


def _is_scarce(rate: float, demands: Mapping[str, float]) -> bool:
    """Return whether less than a call a second is left for each replica beside all demands."""
    return rate - sum(demands.values()) < len(demands)


def _kept_for_starts(rate: float, demands: Mapping[str, float]) -> float:
    """Return what is left for replicas whose load may begin; nothing if each has a share.

    If there is one replica, another may start at any time; what is left for it is a part of the margin.
    """
    if len(demands) <= 1:
        return start_reserve(rate) if start_reserve(rate) <= rate * MARGIN else 0.0
    return 0.0 if all(demands.values()) or not _is_scarce(rate, demands) else start_reserve(rate)


def _round(total: float, shares: Mapping[str, float]) -> dict[str, float]:
    """Return whole numbers near the shares, each at least 1 less, which add up to the whole of ``total``."""
    left = math.floor(total + 1e-9) - sum(math.floor(share) for share in shares.values())
    largest = sorted(shares, key=lambda name: (math.floor(shares[name]) - shares[name], name))[: max(left, 0)]
    return {name: float(math.floor(share)) + (name in largest) for name, share in shares.items()}


def grant_share(
    replica: str, asked: ShareRequest, stored: Sequence[StoredShare], live: Collection[str], now_us: int
) -> tuple[StoredShare, GrantedShare]:
    """Return the replica's new row and share; ``stored`` are the rows of the account, ``live`` all replicas.

    The rate is the lowest of the replicas' settings. A live replica that has not asked for this account has
    no demand. One that has nothing takes at least half of what nobody has reserved, so that another one can
    begin as well. Each may keep what it has reserved.
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
    busy = sum(demand > 0 for demand in demands.values())
    if len(names) > 1 and rate - kept_for_starts >= max(busy, 1):  # else each has less than one call a second
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
