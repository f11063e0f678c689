"""Builds the engine's parts and runs them in one group of tasks; the server and the tests both call it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lessor_server.domain.events import TakenOver
from lessor_server.engine.disabler import Disabler
from lessor_server.engine.due import Due
from lessor_server.engine.expiry import Expiry
from lessor_server.engine.issuer import Issuer
from lessor_server.engine.keeper import Keeper
from lessor_server.engine.leases import Leases
from lessor_server.engine.mounts import Mounts, RootRules
from lessor_server.engine.pacer import Pace, Pacer
from lessor_server.engine.ports import Aws, Observer, Sealer, Store
from lessor_server.engine.prefixes import Prefixes
from lessor_server.engine.roles import Roles
from lessor_server.engine.roots import Roots
from lessor_server.engine.signals import Signals
from lessor_server.engine.sweeper import Sweeper
from lessor_server.engine.timers import Timers
from lessor_server.engine.waiting import Waiting
from lessor_server.engine.work import Work


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything that the engine reaches: its ports and its chance."""

    store: Store
    aws: Aws
    sealer: Sealer
    notify: Observer
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator's settings bound."""

    pace: Pace = Pace()
    root_rules: RootRules = RootRules()


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that services call."""

    issuer: Issuer
    leases: Leases
    prefixes: Prefixes
    mounts: Mounts
    disabler: Disabler
    roles: Roles
    sweeper: Sweeper
    expiry: Expiry
    work: Work
    backup: Callable[[str], Awaitable[tuple[str, int]]]


@asynccontextmanager
async def running(outside: Outside, limits: Limits) -> AsyncIterator[Engine]:
    """Run the engine while the block runs: claims of a process before are void, what is due is revoked.

    Leaving the block cancels what still runs; a kill at any moment does no more harm than that.
    """
    store, rng, notify = outside.store, outside.rng, outside.notify
    taken = await store.take_over()
    if taken:
        notify(TakenOver(taken))
    async with asyncio.TaskGroup() as group:
        work, due = Work(group), Due()
        roots = Roots(store, outside.sealer, outside.aws, Pacer(limits.pace), rng, await store.instance())
        timers = Timers(store, due.offer, due.look_at_everything)
        signals = Signals(notify, timers.watch, due, Waiting())
        expiry = Expiry(store, roots, notify, due.look_at_everything)
        await expiry.start()
        prefixes = Prefixes(store, due, notify)
        disabler = Disabler(store, prefixes, notify)
        sweeper = Sweeper(store, roots, signals, expiry)
        keeper = Keeper(store, roots, work, signals, expiry, rng)
        for lasting in (timers, expiry, prefixes, disabler, sweeper, keeper):
            work.start(lasting.run(), lasting=True)
        try:
            yield Engine(
                issuer=Issuer(store, roots, work, signals, rng),
                leases=Leases(store, signals),
                prefixes=prefixes,
                mounts=Mounts(store, roots, notify, rng, limits.root_rules),
                disabler=disabler,
                roles=Roles(store, notify, rng),
                sweeper=sweeper,
                expiry=expiry,
                work=work,
                backup=store.backup,
            )
        finally:
            work.cancel()
