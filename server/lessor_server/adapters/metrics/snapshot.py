"""Gathers the gauges: the numbers of leases every 10 s from the store, everything else when they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, TypeVar

from lessor_server.adapters.metrics import families
from lessor_server.adapters.metrics.families import ASKED_HOLD, HOLDS, MAX_MOUNTS, PRIORITIES
from lessor_server.adapters.metrics.page import Gauges, Values, count_leases
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.domain.audit.record import SinkStatus
from lessor_server.domain.errors.base import LessorError
from lessor_server.engine.meter import EngineGauges
from lessor_server.engine.store_types import LeaseGauges

T = TypeVar("T")

REFRESH_SECONDS: Final = 10.0
MAX_SHARE: Final = 0.1
"""The share of the time in which the store may be read for numbers."""
LAG_EVERY_SECONDS: Final = 0.5
LAG_WINDOW_SECONDS: Final = 30.0


class MeasuredStore(Protocol):
    """What the snapshot needs of the store."""

    def now(self) -> int:
        """Return the service's time in microseconds."""
        ...

    async def measure_leases(self) -> LeaseGauges:
        """Return the numbers for metrics."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where gauges are read: the store, the engine, the audit log, the server's warnings and certificate.

    ``certificate_expiry`` is in seconds since the epoch; None without TLS.
    """

    store: MeasuredStore
    read_engine: Callable[[], EngineGauges]
    audit_sinks: Callable[[], Sequence[SinkStatus]]
    count_warnings: Callable[[], Awaitable[Mapping[str, int]]]
    certificate_expiry: Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class _Leases:
    """The numbers of leases, and when they were read, in the loop's time."""

    at: float
    values: dict[families.Family, Values]
    oldest_due_us: int


Count = Callable[[LeaseGauges], Awaitable[Mapping[families.Family, Values]]]
"""Returns the gauges of the numbers of leases."""


async def count_on_thread(found: LeaseGauges) -> Mapping[families.Family, Values]:
    """Count on a thread: with ten thousand roles it takes longer than the loop may be blocked."""
    return await asyncio.to_thread(count_leases, found.counts, found.mounts)


class LoopLag:
    """Measures how late the event loop is: the longest delay in this window of 30 s and the one before."""

    def __init__(self) -> None:
        """Begin without a delay."""
        self._before = self._current = 0.0

    @property
    def seconds(self) -> float:
        """Return the longest delay."""
        return max(self._before, self._current)

    async def run(self) -> NoReturn:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAG_WINDOW_SECONDS
        while True:
            due = loop.time() + LAG_EVERY_SECONDS
            await asyncio.sleep(LAG_EVERY_SECONDS)
            now = loop.time()
            self._current = max(self._current, now - due)
            if now >= until:
                self._before, self._current, until = self._current, 0.0, now + LAG_WINDOW_SECONDS


class Snapshot:
    """The gauges of a server; before ``watch`` there is nothing but its version, and that it is not ready."""

    def __init__(self, recorder: Recorder, version: str, count: Count = count_on_thread) -> None:
        """Take the clock's skew from ``recorder``; ``count`` adds up the numbers of leases."""
        self.is_ready: Callable[[], bool] = lambda: False
        """Returns whether calls are served."""
        self._count = count
        self._recorder = recorder
        self._version = version
        self._sources: Sources | None = None
        self._watched = asyncio.Event()
        self._leases: _Leases | None = None
        self.loop_lag = LoopLag()

    def watch(self, sources: Sources) -> None:
        """Read ``sources`` from now on."""
        self._sources = sources
        self._watched.set()

    async def run(self) -> NoReturn:
        """Read the numbers of leases every 10 s until cancelled; older ones stay while the store fails.

        If that takes long, as with a million overdue leases, it is done less often.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._watched.wait()
            assert self._sources is not None
            began = loop.time()
            with suppress(LessorError):  # the age of the numbers shows it
                await self._refresh(self._sources)
            await asyncio.sleep(max(REFRESH_SECONDS, (loop.time() - began) / MAX_SHARE))

    async def _refresh(self, sources: Sources) -> None:
        at = asyncio.get_running_loop().time()
        found = await sources.store.measure_leases()
        counts = await self._count(found)
        stuck: Values = {(): found.stuck}
        warnings: Values = {(about,): number for about, number in (await sources.count_warnings()).items()}
        values = {**counts, families.LEASES_STUCK: stuck, families.WARNINGS: warnings}
        self._leases = _Leases(at, values, found.oldest_due_us)
        self._recorder.keep_mounts(found.mounts)

    def read(self) -> Gauges:
        """Return the gauges as they are now."""
        values: dict[families.Family, Values] = {
            families.BUILD: {(self._version,): 1},
            families.LOOP_LAG: {(): self.loop_lag.seconds},
            families.READY: {(): int(self.is_ready())},
        }
        if self._recorder.clock_skew is not None:
            values[families.CLOCK_SKEW] = {(): self._recorder.clock_skew}
        if self._sources is not None:
            values |= self._read_engine(self._sources)
            sinks = self._sources.audit_sinks()
            values[families.AUDIT_UP] = {(one.name.lower(),): int(one.works) for one in sinks}
            if (expiry := self._sources.certificate_expiry()) is not None:
                values[families.CERTIFICATE_EXPIRY] = {(): expiry}
            if self._leases is not None:
                values |= self._read_leases(self._sources, self._leases)
        return Gauges(values)

    def _read_leases(self, sources: Sources, leases: _Leases) -> dict[families.Family, Values]:
        overdue = 0.0
        if leases.oldest_due_us:
            overdue = max(sources.store.now() - leases.oldest_due_us, 0) / 1e6
        age = asyncio.get_running_loop().time() - leases.at
        return {
            **leases.values,
            families.OLDEST_OVERDUE: {(): overdue},
            families.SNAPSHOT_AGE: {(): age},
        }

    def _read_engine(self, sources: Sources) -> dict[families.Family, Values]:
        found = sources.read_engine()
        hold = found.hold.lower()
        reason = hold if hold in HOLDS else ASKED_HOLD
        rates: Values = {(mount,): rate for mount, rate in self._bounded(found.rates)}
        accounts = self._bounded(found.accounts)
        now_us = sources.store.now()
        return {
            families.EXPIRY_HELD: {(one,): int(bool(hold) and one == reason) for one in HOLDS},
            families.AWS_QUEUE: {(one,): found.waiting.get(one, 0) for one in PRIORITIES},
            families.AWS_RATE: rates,
            families.ACCOUNT_USERS: {(mount,): one.room.users for mount, one in accounts if one.room},
            families.ACCOUNT_QUOTA: {
                (mount,): one.room.quota for mount, one in accounts if one.room and one.room.quota
            },
            families.KEY_AGE: {
                (mount,): max(now_us - one.key_created_us, 0) / 1e6
                for mount, one in accounts
                if one.key_created_us
            },
        }

    @staticmethod
    def _bounded(by_mount: Mapping[str, T]) -> list[tuple[str, T]]:
        """Return the first mounts by name: a gauge of one mount can't be added up with others."""
        return sorted(by_mount.items(), key=lambda item: item[0])[:MAX_MOUNTS]
