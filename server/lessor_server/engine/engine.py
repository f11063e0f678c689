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
from lessor_server.engine.aws.shared_rate import SharedRate
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.config.mounts import Mounts, RootRules
from lessor_server.engine.config.roles import NoLinter, Roles
from lessor_server.engine.config.root_checker import RootChecker
from lessor_server.engine.issuing.issuer import Issuer
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.leases import Leases
from lessor_server.engine.meter import NO_METER, EngineGauges, Meter
from lessor_server.engine.ports import Aws, Linter, Observer, Report, Store
from lessor_server.engine.replicas.key_agreement import KeyAgreement
from lessor_server.engine.replicas.registry import ReplicaRegistry, ThisReplica
from lessor_server.engine.revocation.bulk import Prefixes
from lessor_server.engine.revocation.claims import RevocationClaims
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
from lessor_server.engine.streams.lease_event_relay import LeaseEventRelay
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
    replica: ThisReplica | None = None
    """This process as one of several on the store; None if no other process uses it."""


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
    replicas: ReplicaRegistry | None = None
    """What this process knows of the others; None if no other process uses the store."""


@asynccontextmanager
async def run_engine(outside: Dependencies, limits: EngineConfig) -> AsyncIterator[Engine]:
    """Run the engine while the block runs; if no other process can, first void the claims of earlier ones.

    The end of the block cancels all tasks, which is as safe as a kill at any moment.
    """
    lease_events = LeaseEventBroker(outside.store.now)
    supervisor = Supervisor(outside.report)
    outside = replace(outside, notify=supervisor.observer(lease_events.beside(outside.notify)))
    if outside.replica is None and (taken := await outside.store.void_stale_claims()):
        outside.notify(TakenOver(taken))
    fleet = _join_fleet(outside, limits.rate_limit)
    if fleet.registry is not None:
        await fleet.registry.start()
    async with asyncio.TaskGroup() as group:
        work = BackgroundTasks(group, supervisor)
        engine, lasting = await _build(outside, limits, (work, supervisor), lease_events, fleet)
        for one in lasting:
            work.keep_running(one.run)
        try:
            yield engine
        finally:
            work.cancel()
    if fleet.registry is not None:
        await fleet.registry.leave()


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
    fleet: _Fleet,
) -> tuple[Engine, tuple[Lasting, ...]]:
    """Build the engine; return the parts that services call, and the parts to run."""
    store, rng, notify = outside.store, outside.rng, outside.notify
    (work, supervisor), queue = running_in, fleet.queue
    roots = await _build_roots(outside, fleet, supervisor)
    timers = ExpiryTimer(store, queue.push_hints, queue.request_full_scan)
    watch = timers.watch
    expiry = await _start_expiry_hold(ExpiryHold(store, roots, notify, queue.request_full_scan))
    prefixes = Prefixes(store, queue, notify, supervisor)
    reconciler = Reconciler(store, roots, watch, expiry, notify, supervisor)
    worker = RevocationWorker(
        store, roots, queue, watch, fleet.claims(roots.instance, expiry), notify, work, rng
    )
    issuer = Issuer(store, roots, LeaseWriter(store, watch, notify, work, rng, outside.meter), work)
    keys = UserKeys(store, roots, outside.sealer)
    rotator = Rotator(store, roots, keys, notify, rng, supervisor, work, expiry)
    root_keys = RootKeys(store, roots, rotator, supervisor)
    static_roles = StaticRoles(store, roots, outside.sealer, notify, rotator)
    mount_remover = MountRemover(store, roots, prefixes, static_roles, expiry, work, notify)
    accounts = AccountMeter(store, roots)
    sealing_keys = SealingKeys(store, outside.sealer, notify, work, fleet.keys)
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
        replicas=fleet.registry,
    )
    parts = (timers, expiry, prefixes, mount_remover, reconciler, worker, rotator, root_keys, sealing_keys)
    return engine, (*parts, *fleet.parts(lease_events), *((accounts,) if limits.measure_accounts else ()))


async def _start_expiry_hold(expiry: ExpiryHold) -> ExpiryHold:
    await expiry.start()
    return expiry


async def _build_roots(outside: Dependencies, fleet: _Fleet, supervisor: Supervisor) -> Roots:
    instance = (await outside.store.status()).instance_id
    ports = (outside.store, outside.sealer, outside.aws)
    return Roots(*ports, fleet.limiters, outside.rng, instance, supervisor)


def _read_gauges(roots: Roots, expiry: ExpiryHold, accounts: AccountMeter) -> EngineGauges:
    waiting = {priority.name.lower(): count for priority, count in roots.count_waiting().items()}
    return EngineGauges(roots.rates(), waiting, expiry.why, accounts.accounts)


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What this process shares with other replicas; ``registry`` is None if there are none."""

    queue: RevocationQueue
    limiters: RateLimiters
    registry: ReplicaRegistry | None = None
    me: ThisReplica | None = None
    keys: KeyAgreement | None = None

    def claims(self, instance: str, expiry: ExpiryHold) -> RevocationClaims:
        """Return what claims leases, by the name of this replica, or else of the installation."""
        if self.me is None:
            return RevocationClaims(instance, expiry)
        return RevocationClaims(self.me.name, expiry, self.me.store)

    def parts(self, lease_events: LeaseEventBroker) -> tuple[Lasting, ...]:
        """Return the parts to run because of the other replicas."""
        if self.registry is None or self.me is None:
            return ()
        relay = LeaseEventRelay(self.me.store, self.me.name, lease_events, self.registry.has_peers)
        return self.registry, relay


def _join_fleet(outside: Dependencies, rate_limit: RateLimit) -> _Fleet:
    queue, me = RevocationQueue(outside.meter), outside.replica
    if me is None:
        return _Fleet(queue, RateLimiters(rate_limit))
    wake, boot_us, rate = asyncio.Event(), me.clock.boot_us, rate_limit.rate or 0.0
    limiters = RateLimiters(rate_limit, lambda account: SharedRate(account, rate, boot_us, wake.set))
    keys = KeyAgreement(me.name, outside.sealer, outside.store.list_data_keys, boot_us)
    registry = ReplicaRegistry(me, limiters, wake, queue, outside.notify, keys)
    return _Fleet(queue, limiters, registry, me, keys)


def _backup(store: Store, notify: Observer) -> Callable[[str, str], Awaitable[tuple[str, int]]]:
    async def backup(name: str, by: str) -> tuple[str, int]:
        path, size = await store.backup(name)
        notify(BackedUp(path, size, by))
        return path, size

    return backup
