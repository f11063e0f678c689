"""Builds the engine's parts and runs them in one group of tasks; the server and the tests both call it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from lessor_server.domain.events import BackedUp, TakenOver
from lessor_server.engine.checks import Checks
from lessor_server.engine.credential_watch import CredentialWatch
from lessor_server.engine.disabler import Disabler
from lessor_server.engine.due import Due
from lessor_server.engine.expiry import Expiry
from lessor_server.engine.issuer import Issuer
from lessor_server.engine.keeper import Keeper
from lessor_server.engine.leases import Leases
from lessor_server.engine.mounts import Mounts, RootRules
from lessor_server.engine.pacer import Pace, Pacer
from lessor_server.engine.ports import Aws, Linter, Observer, Report, Sealer, Store
from lessor_server.engine.prefixes import Prefixes
from lessor_server.engine.roles import NoLinter, Roles
from lessor_server.engine.roots import Roots
from lessor_server.engine.rotation.order import Tools
from lessor_server.engine.rotation.root_keys import RootKeys
from lessor_server.engine.rotation.rotator import Rotator
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.engine.signals import Signals
from lessor_server.engine.supervisor import Supervisor
from lessor_server.engine.sweeper import Sweeper
from lessor_server.engine.timers import Timers
from lessor_server.engine.waiting import Waiting
from lessor_server.engine.watchers import Watchers
from lessor_server.engine.work import Work


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything that the engine reaches: its ports and its chance."""

    store: Store
    aws: Aws
    sealer: Sealer
    notify: Observer
    report: Report
    rng: random.Random
    linter: Linter = NoLinter()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator's settings bound."""

    pace: Pace = Pace()
    root_rules: RootRules = RootRules()


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that services call."""

    issuer: Issuer
    credential_watch: CredentialWatch
    leases: Leases
    prefixes: Prefixes
    mounts: Mounts
    root_keys: RootKeys
    static_roles: StaticRoles
    disabler: Disabler
    roles: Roles
    checks: Checks
    sweeper: Sweeper
    watchers: Watchers
    expiry: Expiry
    work: Work
    backup: Callable[[str, str], Awaitable[tuple[str, int]]]
    """Writes a copy of the store under a name, for a caller; returns its path and its size in bytes."""
    unreadable_rows: Callable[[], Awaitable[list[str]]]
    """Returns which rows of the store could not be read, one line each."""


@asynccontextmanager
async def running(outside: Outside, limits: Limits) -> AsyncIterator[Engine]:
    """Run the engine while the block runs: claims of a process before are void, what is due is revoked.

    Leaving the block cancels what still runs; a kill at any moment does no more harm than that.
    """
    watchers = Watchers(outside.store.now)
    supervisor = Supervisor(outside.report)
    outside = replace(outside, notify=supervisor.observer(watchers.beside(outside.notify)))
    await outside.store.take_over_rotations()
    taken = await outside.store.take_over()
    if taken:
        outside.notify(TakenOver(taken))
    async with asyncio.TaskGroup() as group:
        work = Work(group, supervisor)
        engine, lasting = await _built(outside, limits, (work, supervisor), watchers)
        for one in lasting:
            work.keep_running(one.run)
        try:
            yield engine
        finally:
            work.cancel()


class Lasting(Protocol):
    """A part that runs as long as the engine does."""

    def run(self) -> Coroutine[object, object, None]:
        """Do its work until cancelled; begin again wherever an earlier run has failed."""
        ...


async def _built(
    outside: Outside, limits: Limits, running_in: tuple[Work, Supervisor], watchers: Watchers
) -> tuple[Engine, tuple[Lasting, ...]]:
    """Return the parts that services call, and those that are to be run."""
    store, rng, notify = outside.store, outside.rng, outside.notify
    work, supervisor = running_in
    due = Due()
    instance = await store.instance()
    roots = Roots(store, outside.sealer, outside.aws, Pacer(limits.pace), rng, instance, supervisor)
    timers = Timers(store, due.offer, due.look_at_everything)
    signals = Signals(notify, timers.watch, due, Waiting())
    expiry = Expiry(store, roots, notify, due.look_at_everything)
    await expiry.start()
    prefixes = Prefixes(store, due, notify, supervisor)
    sweeper = Sweeper(store, roots, signals, expiry, supervisor)
    keeper = Keeper(store, roots, work, signals, expiry, rng, supervisor)
    issuer = Issuer(store, roots, work, signals, rng, supervisor)
    tools = Tools(store, roots, outside.sealer, notify, rng, supervisor)
    rotator = Rotator(tools, work, expiry)
    root_keys = RootKeys(store, roots, rotator, supervisor)
    static_roles = StaticRoles(tools, rotator)
    disabler = Disabler(store, roots, prefixes, static_roles, expiry, work, notify)
    engine = Engine(
        issuer=issuer,
        credential_watch=CredentialWatch(store, issuer, work, signals, rng),
        leases=Leases(store, signals),
        prefixes=prefixes,
        mounts=Mounts(store, roots, root_keys, notify, rng, limits.root_rules),
        root_keys=root_keys,
        static_roles=static_roles,
        disabler=disabler,
        roles=Roles(store, roots, outside.linter, notify, rng),
        checks=Checks(store, roots),
        sweeper=sweeper,
        watchers=watchers,
        expiry=expiry,
        work=work,
        backup=_backup(store, notify),
        unreadable_rows=store.unreadable_rows,
    )
    return engine, (timers, expiry, prefixes, disabler, sweeper, keeper, rotator, root_keys)


def _backup(store: Store, notify: Observer) -> Callable[[str, str], Awaitable[tuple[str, int]]]:
    async def backup(name: str, by: str) -> tuple[str, int]:
        path, size = await store.backup(name)
        notify(BackedUp(path, size, by))
        return path, size

    return backup
