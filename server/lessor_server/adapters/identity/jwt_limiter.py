"""Limits how much is done for credentials that were not seen before, for each peer and together.

The signatures of JWTs are verified, login tokens are looked up in the store, and logins create rows there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.access.caller import IpAddress
from lessor_server.domain.errors.access import TryLater

MAX_PEERS: Final = 10_000
"""The number of peers that are remembered; the one that asked the longest time ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class JwtLimits:
    """New JWTs, login tokens or logins a second; a burst may have those of one second."""

    per_peer: float = 20.0
    together: float = 200.0


class _Bucket:
    """A token bucket that holds the tokens of one second."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = max(rate, 1.0)
        self._filled_at = now

    def fill(self, now: float) -> bool:
        """Add the tokens of the time that has passed; return whether there is one."""
        self._tokens = min(self._tokens + (now - self._filled_at) * self._rate, max(self._rate, 1.0))
        self._filled_at = now
        # Sums of fractions may be short of the whole by a rounding error.
        return self._tokens > 1.0 - 1e-9

    def take(self) -> None:
        self._tokens -= 1.0


class JwtLimiter:
    """Admits new credentials of one kind within the limits; times are the running loop's."""

    def __init__(self, limits: JwtLimits, what: str = "JWTs") -> None:
        """Begin with full buckets; ``what`` names the credentials in errors."""
        self._limits = limits
        self._what = what
        self._together: _Bucket | None = None
        self._peers: OrderedDict[IpAddress | str | None, _Bucket] = OrderedDict()

    def admit(self, address: IpAddress | str | None) -> None:
        """Count one credential of a peer, None for all unix sockets; raise ``TryLater`` past a limit.

        A refused peer uses up nothing of what all peers have together.
        """
        now = asyncio.get_running_loop().time()
        together = self._together = self._together or _Bucket(self._limits.together, now)
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Bucket(self._limits.per_peer, now)
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(address)
        if not peer.fill(now):
            raise TryLater(f"too many new {self._what} come from this address", retry_in=1.0)
        if not together.fill(now):
            raise TryLater(f"too many new {self._what} have to be checked", retry_in=1.0)
        peer.take()
        together.take()
