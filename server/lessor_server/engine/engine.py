"""Builds the engine's parts and runs them in one group of tasks; the server and the tests both call it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from lessor_server.domain.events import BackedUp, TakenOver
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.config.mounts import Mounts, RootRules
from lessor_server.engine.config.roles import NoLinter, Roles
from lessor_server.engine.config.root_checker import RootChecker
from lessor_server.engine.issuing.issuer import Issuer
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.leases import Leases
from lessor_server.engine.meter import NO_METER, EngineGauges, Meter
from lessor_server.engine.ports import Aws, Linter, Observer, Report, Store
from lessor_server.engine.revocation.bulk import Prefixes
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.revocation.expiry_timer import ExpiryTimer
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.revocation.worker import RevocationWorker
from lessor_server.engine.rotation.root_keys import RootKeys
from lessor_server.engine.rotation.rotator import Rotator
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.engine.rotation.user_keys import UserKeys
from lessor_server.engine.sealing_ports import KeyedSealer
from lessor_server.engine.store_types import StoreStatus
from lessor_server.engine.streams.credential_stream import CredentialStream
from lessor_server.engine.streams.lease_events import LeaseEventBroker
from lessor_server.engine.supervisor import Supervisor
from lessor_server.engine.upkeep.accounts import AccountMeter
from lessor_server.engine.upkeep.mount_remover import MountRemover
from lessor_server.engine.upkeep.reconciler import Reconciler
from lessor_server.engine.upkeep.sealing_keys import SealingKeys


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything outside that the engine uses: its ports and its random generator."""

    store: Store
    aws: Aws
    sealer: KeyedSealer
    notify: Observer
    report: Report
    rng: random.Random
    linter: Linter = NoLinter()
    meter: Meter = NO_METER


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The limits of the operator's settings."""

    rate_limit: RateLimit = RateLimit()
    root_rules: RootRules = RootRules()
    measure_accounts: bool = False
    """Whether accounts are measured, which takes calls to AWS each hour."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of the engine that services call."""

    issuer: Issuer
    credential_stream: CredentialStream
    leases: Leases
    prefixes: Prefixes
    mounts: Mounts
    root_keys: RootKeys
    static_roles: StaticRoles
    mount_remover: MountRemover
    roles: Roles
    root_checker: RootChecker
    reconciler: Reconciler
    lease_events: LeaseEventBroker
    expiry: ExpiryHold
    sealing_keys: SealingKeys
    work: BackgroundTasks
    backup: Callable[[str, str], Awaitable[tuple[str, int]]]
    """Writes a copy of the store under a name, for a caller; returns its path and its size in bytes."""
    store_status: Callable[[], Awaitable[StoreStatus]]
    read_gauges: Callable[[], EngineGauges]
    """Returns the engine's state for metrics."""


@asynccontextmanager
async def run_engine(outside: Dependencies, limits: EngineConfig) -> AsyncIterator[Engine]:
    """Run the engine while the block runs; first void the claims of earlier processes.

    The end of the block cancels all tasks, which is as safe as a kill at any moment.
    """
    lease_events = LeaseEventBroker(outside.store.now)
    supervisor = Supervisor(outside.report)
    outside = replace(outside, notify=supervisor.observer(lease_events.beside(outside.notify)))
    taken = await outside.store.void_stale_claims()
    if taken:
        outside.notify(TakenOver(taken))
    async with asyncio.TaskGroup() as group:
        work = BackgroundTasks(group, supervisor)
        engine, lasting = await _build(outside, limits, (work, supervisor), lease_events)
        for one in lasting:
            work.keep_running(one.run)
        try:
            yield engine
        finally:
            work.cancel()


class Lasting(Protocol):
    """A part that runs as long as the engine does."""

    def run(self) -> Coroutine[object, object, None]:
        """Run until cancelled; it must be possible to restart after a failure."""
        ...


async def _build(
    outside: Dependencies,
    limits: EngineConfig,
    running_in: tuple[BackgroundTasks, Supervisor],
    lease_events: LeaseEventBroker,
) -> tuple[Engine, tuple[Lasting, ...]]:
    """Build the engine; return the parts that services call, and the parts to run."""
    store, rng, notify = outside.store, outside.rng, outside.notify
    work, supervisor = running_in
    queue = RevocationQueue(outside.meter)
    roots = await _build_roots(outside, limits, supervisor)
    timers = ExpiryTimer(store, queue.push_hints, queue.request_full_scan)
    watch = timers.watch
    expiry = ExpiryHold(store, roots, notify, queue.request_full_scan)
    await expiry.start()
    prefixes = Prefixes(store, queue, notify, supervisor)
    reconciler = Reconciler(store, roots, watch, expiry, notify, supervisor)
    worker = RevocationWorker(store, roots, queue, watch, expiry, notify, work, rng)
    writer = LeaseWriter(store, watch, notify, work, rng, outside.meter)
    issuer = Issuer(store, roots, writer, work)
    keys = UserKeys(store, roots, outside.sealer)
    rotator = Rotator(store, roots, keys, notify, rng, supervisor, work, expiry)
    root_keys = RootKeys(store, roots, rotator, supervisor)
    static_roles = StaticRoles(store, roots, outside.sealer, notify, rotator)
    mount_remover = MountRemover(store, roots, prefixes, static_roles, expiry, work, notify)
    accounts = AccountMeter(store, roots)
    sealing_keys = SealingKeys(store, outside.sealer, notify, work)
    engine = Engine(
        issuer=issuer,
        credential_stream=CredentialStream(store, issuer, queue, watch, notify, work, rng),
        leases=Leases(store, queue, watch, notify),
        prefixes=prefixes,
        mounts=Mounts(store, roots, root_keys, notify, limits.root_rules),
        root_keys=root_keys,
        static_roles=static_roles,
        mount_remover=mount_remover,
        roles=Roles(store, roots, outside.linter, notify, rng),
        root_checker=RootChecker(store, roots),
        reconciler=reconciler,
        lease_events=lease_events,
        expiry=expiry,
        sealing_keys=sealing_keys,
        work=work,
        backup=_backup(store, notify),
        store_status=store.status,
        read_gauges=partial(_read_gauges, roots, expiry, accounts),
    )
    parts = (timers, expiry, prefixes, mount_remover, reconciler, worker, rotator, root_keys, sealing_keys)
    return engine, (*parts, *((accounts,) if limits.measure_accounts else ()))


async def _build_roots(outside: Dependencies, limits: EngineConfig, supervisor: Supervisor) -> Roots:
    store, limiters = outside.store, RateLimiters(limits.rate_limit)
    instance = (await store.status()).instance_id
    return Roots(store, outside.sealer, outside.aws, limiters, outside.rng, instance, supervisor)


def _read_gauges(roots: Roots, expiry: ExpiryHold, accounts: AccountMeter) -> EngineGauges:
    waiting = {priority.name.lower(): count for priority, count in roots.count_waiting().items()}
    return EngineGauges(roots.rates(), waiting, expiry.why, accounts.accounts)


def _backup(store: Store, notify: Observer) -> Callable[[str, str], Awaitable[tuple[str, int]]]:
    async def backup(name: str, by: str) -> tuple[str, int]:
        path, size = await store.backup(name)
        notify(BackedUp(path, size, by))
        return path, size

    return backup
