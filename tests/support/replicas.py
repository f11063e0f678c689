"""Replicas on one store in virtual time: whole engines, or only their rate limiters."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from lessor_server.domain.errors.base import RateLimiterFull, StoreUnavailable
from lessor_server.engine.aws.rate_limiter import Priority, RateLimit, RateLimiter, RateLimiters
from lessor_server.engine.aws.shared_rate import SharedRate
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.ports import Store
from lessor_server.engine.replicas.key_agreement import KeyAgreement
from lessor_server.engine.replicas.registry import ReplicaRegistry, ThisReplica
from lessor_server.engine.revocation.queue import RevocationQueue
from tests.support.engine_world import Clocks, World
from tests.support.memory_aws import MemoryAws
from tests.support.memory_store import MemoryStore
from tests.support.plain_keyring import PlainKeyring
from tests.support.recording import Recording
from tests.support.slots import slot

ACCOUNT = "123456789012"


class CutStore:
    """A store as one replica reaches it: while it is ``cut`` every call fails, or only its answer is lost."""

    def __init__(self, store: MemoryStore) -> None:
        """Pass calls to ``store``."""
        self._store = store
        self.cut = False
        self.deaf = False
        """Calls have their effect, and the answers are lost: callers get ``lost`` instead."""
        self.deaf_to: Collection[str] = ()
        """The methods whose answers are lost."""
        self.lost: Exception = StoreUnavailable("the answer was lost", retry_in=1.0)
        self.hangs = False
        """Calls are never answered."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def through(*args: Any, **kwargs: Any) -> Any:
            if self.hangs:
                await asyncio.get_running_loop().create_future()
            if self.cut:
                await asyncio.sleep(0.01)
                raise StoreUnavailable("the test has cut the connection", retry_in=1.0)
            result = await method(*args, **kwargs)
            if self.deaf or name in self.deaf_to:
                raise self.lost
            return result

        return through


@dataclass(slots=True)
class Replica:
    """One engine, its connection to the store, and the calls that it sends."""

    engine: Engine
    store: CutStore
    aws: MemoryAws
    events: Recording


@asynccontextmanager
async def replica(w: World, name: str, rate: float | None = None) -> AsyncIterator[Replica]:
    """Run one more engine on the store and the accounts of a world, as a replica of this name."""
    store, events = CutStore(w.store), Recording()
    aws = MemoryAws(w.aws.accounts, latency=w.aws.latency)
    me = ThisReplica(cast("Any", store), w.clocks, name, "1.0.0")
    rng = random.Random(name)
    outside = Dependencies(cast("Store", store), aws, PlainKeyring(), events, w.reports, rng, replica=me)
    async with run_engine(outside, EngineConfig(RateLimit(rate=rate))) as engine:
        yield Replica(engine, store, aws, events)


@dataclass(slots=True)
class RateUser:
    """The rate limiters of one replica, and when it sent calls."""

    registry: ReplicaRegistry
    limiters: RateLimiters
    store: CutStore
    sent: list[float] = field(default_factory=list)
    load: int = 0
    """How many callers send one call after another."""
    began: float = 0.0
    """The loop's time at the start."""

    @property
    def limiter(self) -> RateLimiter:
        """Return the rate limiter of the account."""
        return self.limiters.limiter(ACCOUNT, "")

    async def send(self, priority: Priority = Priority.ISSUE, seconds: float = 0.05) -> None:
        """Send one call, or give up with the rate limiter."""
        with suppress(RateLimiterFull):
            async with slot(self.limiter, priority):
                self.sent.append(asyncio.get_running_loop().time())
                await asyncio.sleep(seconds)

    async def _call(self, number: int) -> None:
        while True:
            if number >= self.load:
                await asyncio.sleep(0.1)
            else:
                await self.send()

    async def run(self, callers: int) -> None:
        """Give signs and send calls, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.registry.run())
            for number in range(callers):
                group.create_task(self._call(number))


@asynccontextmanager
async def rate_users(
    rate: float, count: int, callers: int = 40, share: Callable[..., SharedRate] = SharedRate
) -> AsyncIterator[list[RateUser]]:
    """Run the rate limiters of ``count`` replicas on one store, each with so many idle callers."""
    clocks = Clocks()
    memory = MemoryStore(clocks)
    users: list[RateUser] = []
    for number in range(count):
        wake, store = asyncio.Event(), CutStore(memory)
        limit = RateLimit(rate=rate, in_flight=1000)
        limiters = RateLimiters(
            limit, lambda account, wake=wake: share(account, rate, clocks.boot_us, wake.set)
        )
        me = ThisReplica(cast("Any", store), clocks, f"replica-{number}", "1.0.0")
        keys = KeyAgreement(me.name, PlainKeyring(), store.list_data_keys, clocks.boot_us)
        registry = ReplicaRegistry(me, limiters, wake, RevocationQueue(), Recording(), keys)
        await registry.start()
        users.append(RateUser(registry, limiters, store, began=asyncio.get_running_loop().time()))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(callers)) for one in users]
        yield users
        for task in tasks:
            task.cancel()
