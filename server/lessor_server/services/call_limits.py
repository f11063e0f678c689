"""Limits of identified callers: calls per second, calls in progress, unbounded streams.

Source of the rate: the generic cell rate algorithm, ITU-T I.371, annex A.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.access.caller import Principal
from lessor_server.domain.access.names import ROOT_NAME
from lessor_server.domain.errors.access import RateLimited, TooManyWatches
from lessor_server.domain.errors.base import TooManyCalls

BURST_SECONDS = 2.0
"""A caller that was silent may make the calls of this time at once."""
_PRUNE_SECONDS = 10.0
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class IdentityLimits:
    """The limits of settings: ``rate`` in calls per second of one identity, None for no limit."""

    calls: int = 2_000
    calls_per_identity: int = 200
    watches_per_identity: int = 100
    rate: float | None = None


DEFAULT_LIMITS: Final = IdentityLimits()


class CallLimiter:
    """Counts the calls of each identity while they run."""

    def __init__(self, limits: IdentityLimits) -> None:
        """Begin without calls."""
        self._limits = limits
        self._calls: dict[str, int] = {}
        self._watches: dict[str, int] = {}
        self._next: dict[str, float] = {}
        """By identity: when (the loop's time) its next call is due."""
        self._pruned = 0.0
        self._total = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_progress(self) -> int:
        """Return the number of calls and unbounded streams in progress."""
        return self._total + sum(self._watches.values())

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in progress."""
        await self._idle.wait()

    def take_turn(self, principal: Principal) -> None:
        """Count one call towards the rate of its caller; root's is not limited.

        Raises:
            RateLimited: The caller has used its rate and its burst.
        """
        rate = self._limits.rate
        if rate is None or principal.name == ROOT_NAME:
            return
        now = asyncio.get_running_loop().time()
        earliest = min(now - BURST_SECONDS + 1 / rate, now)
        if now - self._pruned >= _PRUNE_SECONDS:
            self._pruned = now
            self._next = {name: due for name, due in self._next.items() if due > earliest}
        due = max(self._next.get(principal.name, earliest), earliest)
        if due > now + _ROUNDING:
            raise RateLimited(
                f"{principal.name} makes more than {rate:g} calls per second",
                subject=f"identity/{principal.name}",
                retry_in=due - now,
            )
        self._next[principal.name] = due + 1 / rate

    def counted(self, principal: Principal, *, lasting: bool) -> _Counted:
        """Return what counts a call while its block runs.

        Its begin raises:
            TooManyWatches, TooManyCalls: The caller, or the process, has its maximum.
        """
        return _Counted(self, principal.name, lasting)

    def begin(self, name: str, *, lasting: bool) -> None:
        """Count a call, or raise ``TooManyWatches`` or ``TooManyCalls``."""
        counter, max_count = self._calls, self._limits.calls_per_identity
        if lasting:
            counter, max_count = self._watches, self._limits.watches_per_identity
        count = counter.get(name, 0)
        if count >= max_count:
            what = "open streams" if lasting else "calls in progress"
            text = f"{name} has reached its maximum of {what}, {max_count}"
            kind = TooManyWatches if lasting else TooManyCalls
            raise kind(text, subject=f"identity/{name}", retry_in=1.0)
        if not lasting and self._total >= self._limits.calls:
            raise TooManyCalls(
                f"the server has reached its maximum of calls in progress, {self._limits.calls}", retry_in=1.0
            )
        counter[name] = count + 1
        self._total += not lasting
        self._idle.clear()

    def end(self, name: str, *, lasting: bool) -> None:
        """Stop counting a call."""
        counter = self._watches if lasting else self._calls
        self._total -= not lasting
        if left := counter[name] - 1:
            counter[name] = left
            return
        del counter[name]
        if not self._calls and not self._watches:
            self._idle.set()


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts a call of an identity while its block runs."""

    limiter: CallLimiter
    name: str
    lasting: bool

    def __enter__(self) -> None:
        """Begin."""
        self.limiter.begin(self.name, lasting=self.lasting)

    def __exit__(self, *_: object) -> None:
        """End."""
        self.limiter.end(self.name, lasting=self.lasting)
