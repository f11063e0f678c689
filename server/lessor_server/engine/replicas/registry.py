"""Keeps this replica in the table of replicas, and what it learns there about the others.

Each replica gives a sign of life every 5 s. With the same statement it asks for its shares of ``aws.rate``.
If a replica was silent for 20 s, the leases that it was revoking become due for the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.events import ReplicaSilent
from lessor_server.engine.aws.rate_limiter import RateLimiters
from lessor_server.engine.aws.shared_rate import SharedRate
from lessor_server.engine.ports import Observer
from lessor_server.engine.replica_ports import Fleet, ReplicaSign, ReplicaStore
from lessor_server.engine.replicas.key_agreement import KeyAgreement
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.waiting import wait_until

SIGN_SECONDS: Final = 5.0
BUSY_SECONDS: Final = 1.1
"""The interval of the signs while replicas share a rate that one of them uses, or the store fails."""
MIN_PAUSE_SECONDS: Final = 0.1
SIGN_DEADLINE_SECONDS: Final = 4.0
VOID_AGAIN_SECONDS: Final = 10.0
START_PAUSE_SECONDS, MAX_START_SIGNS = 0.5, 60
"""A start waits for so long if another replica does not know the data key in use."""


class MachineClock(Protocol):
    """The machine's clocks in microseconds."""

    def wall_us(self) -> int:
        """Return the wall clock's time since the epoch."""
        ...

    def boot_us(self) -> int:
        """Return the time since the machine started, sleep included."""
        ...


@dataclass(frozen=True, slots=True)
class ThisReplica:
    """This process as one of several; ``name`` is unique among all processes that there have been."""

    store: ReplicaStore
    clock: MachineClock
    name: str
    version: str
    settings: Callable[[], tuple[tuple[str, str], ...]] = tuple
    """Returns the names of settings that all replicas should share, each with a digest of its value."""


class ReplicaRegistry:
    """Signs this replica on, and takes over from silent ones."""

    def __init__(
        self,
        me: ThisReplica,
        limiters: RateLimiters,
        wake: asyncio.Event,
        queue: RevocationQueue,
        notify: Observer,
        keys: KeyAgreement,
    ) -> None:
        """Ask for the shares of ``limiters``; a sign is given early when ``wake`` is set."""
        self._me = me
        self._limiters = limiters
        self._wake = wake
        self._queue = queue
        self._notify = notify
        self._keys = keys
        self._next_at = self._asked_at = 0.0
        self._silent: frozenset[str] = frozenset()
        self._void_at = 0.0
        """When the claims of replicas that are still silent are voided again."""
        self.fleet = Fleet(0, ())
        """All replicas, as of the last sign."""

    async def start(self) -> None:
        """Give the first sign; do not use a data key that the others do not know yet.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        await self._report()
        for _ in range(MAX_START_SIGNS):
            if self._keys.is_known_to_others:
                return
            await asyncio.sleep(START_PAUSE_SECONDS)
            await self._report()

    def has_peers(self) -> bool:
        """Return whether there are other replicas, silent ones too."""
        return any(one.name != self._me.name for one in self.fleet.replicas)

    async def run(self) -> None:
        """Give signs and take over from silent replicas, until cancelled."""
        with suppress(StoreUnavailable):
            await self._take_over()  # from those that the first sign has found silent
        while True:
            early = await self._wait()
            try:
                await self._report(only_missing=early)
                await self._take_over()
            except StoreUnavailable:
                self._next_at = asyncio.get_running_loop().time() + BUSY_SECONDS

    async def leave(self) -> None:
        """End the claims of this replica, whose attempts have ended, and delete it from the table.

        If the store does not answer, its peers notice its silence.
        """
        try:
            async with asyncio.timeout(SIGN_DEADLINE_SECONDS):
                await self._me.store.void_lost_claims(self._me.name, ())
                await self._me.store.remove_replica(self._me.name)
        except (StoreUnavailable, TimeoutError):
            return

    async def _wait(self) -> bool:
        """Wait until the next sign is due or a call needs a share; return whether it was the latter."""
        pause_until = self._asked_at + MIN_PAUSE_SECONDS
        early = not await wait_until(self._wake, self._next_at) and pause_until < self._next_at
        if early:
            await asyncio.sleep(pause_until - asyncio.get_running_loop().time())
        self._wake.clear()
        return early

    async def _report(self, *, only_missing: bool = False) -> None:
        """Give one sign, and use the shares that it returns; with ``only_missing`` ask for no others.

        A sign for one account's first call would otherwise write the shares of a thousand accounts.
        """
        loop, clock = asyncio.get_running_loop(), self._me.clock
        asked_us, self._asked_at = clock.boot_us(), loop.time()
        rates = self._list_shared(only_missing=only_missing)
        due_at = self._next_at if only_missing else math.inf
        asked = tuple([one.request(waiting) for one, waiting in rates.values()])
        sign = ReplicaSign(
            self._me.name,
            self._me.version,
            clock.wall_us(),
            self._me.settings(),
            asked,
            self._keys.known,
            self._keys.used,
        )
        self._next_at = loop.time() + SIGN_SECONDS
        try:
            async with asyncio.timeout(SIGN_DEADLINE_SECONDS):
                self.fleet = await self._me.store.report_alive(sign)
        except TimeoutError:
            raise StoreUnavailable("the store did not answer in time", retry_in=1.0) from None
        for granted in self.fleet.granted:
            rates[granted.account][0].accept(granted, asked_us)
        if await self._keys.follow(self.fleet, asked_us):
            self._next_at = loop.time() + BUSY_SECONDS
        shared = asked and len(self.fleet.replicas) > 1
        if shared and any(row.demand for one in self.fleet.replicas for row in one.shares):
            self._next_at = loop.time() + BUSY_SECONDS
        self._next_at = min(self._next_at, due_at)

    def _list_shared(self, *, only_missing: bool) -> dict[str, tuple[SharedRate, int]]:
        """Return the rates to ask shares of, by account, each with how many calls wait for it."""
        return {
            one.account: (one, waiting)
            for one, waiting in self._limiters.sharing()
            if not one.let_lapse(waiting) and (one.is_missing or not only_missing)
        }

    async def _take_over(self) -> None:
        """Make the claimed revocations of silent replicas due, and look for what they left.

        Later only at times: one that was stopped may continue, claim, and end before its next sign.
        """
        now, now_us = asyncio.get_running_loop().time(), self.fleet.now_us
        silent = frozenset([one.name for one in self.fleet.replicas if one.is_silent(now_us)])
        if not silent or (silent == self._silent and now < self._void_at):
            self._silent = silent
            return
        taken = await self._me.store.void_claims_of(sorted(silent))
        new = silent - self._silent
        self._silent, self._void_at = silent, now + VOID_AGAIN_SECONDS
        if taken or new:
            self._notify(ReplicaSilent(", ".join(sorted(new or silent)), taken))
            self._queue.request_full_scan()
