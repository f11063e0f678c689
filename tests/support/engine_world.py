"""The engine of production over fakes: a mount with a root and a role, in virtual time.

``World.kill`` ends the process as ``kill -9`` does: all its tasks stop at one instant, while store and AWS
keep their state. ``World.start`` then starts the next process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from lessor_server.domain.access.acl import EVERYTHING, Grant
from lessor_server.domain.aws.errors import AwsUnknown
from lessor_server.domain.errors.base import AwsAnswer, LessorError, StoreUnavailable
from lessor_server.domain.lease import Lease, Request, State
from lessor_server.domain.lease_id import LeaseId
from lessor_server.domain.mount import Mount
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import Role
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.leases import Revocation
from lessor_server.engine.meter import NO_METER, Meter
from tests.support import builders
from tests.support.iam import Iam
from tests.support.memory_aws import MemoryAws
from tests.support.memory_store import MemoryStore
from tests.support.plain_keyring import PlainKeyring
from tests.support.recording import Recording
from tests.support.reports import Reports

BASE_US = 1_900_000_000_000_000
"""The wall clock's time at the start of a run."""
BOUND_SECONDS = 3.0
"""How long after its expiry a key may still work while AWS answers."""
OTHER_ACCOUNT = "210987654321"


@dataclass(slots=True)
class Clocks:
    """The clocks of the machine and of AWS, based on the loop's time; tests set offsets in seconds."""

    wall_ahead: float = 0.0
    aws_ahead: float = 0.0
    asleep: float = 0.0
    """How long the machine slept; the loop's clock stopped during that time."""

    def wall_us(self) -> int:
        """Return the machine's wall clock."""
        return BASE_US + self.boot_us() + int(self.wall_ahead * 1e6)

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        return int((asyncio.get_running_loop().time() + self.asleep) * 1e6)

    def aws(self) -> float:
        """Return AWS's time in seconds since 1970."""
        return BASE_US / 1e6 + asyncio.get_running_loop().time() + self.asleep + self.aws_ahead


class UnexpectedError(Exception):
    """An error that no port is known to raise."""


class Points:
    """All crash points of a process, before and after each effect on AWS and each commit, in order."""

    def __init__(self) -> None:
        """Begin without a crash."""
        self.passed: list[str] = []
        self.die_at: int | None = None
        self.lose_at: int | None = None
        """The point without an answer: before the effect it did not happen, after the effect it did."""
        self.slow: dict[str, float] = {}
        """The delay, in seconds, at the points with these names."""
        self.lost: set[str] = set()
        """Points at which the answer of the store is lost once."""
        self.broken: set[str] = set()
        """Points at which the port raises an unexpected exception."""
        self.reached = asyncio.Event()
        self.dead = False

    async def __call__(self, name: str) -> None:
        """Pass a point, or never return if the process dies here."""
        if self.dead:
            raise asyncio.CancelledError
        self.passed.append(name)
        if self.die_at == len(self.passed) - 1:
            self.reached.set()
            await asyncio.get_running_loop().create_future()
        if self.lose_at == len(self.passed) - 1:
            self.reached.set()
            raise _unanswered(name)
        await asyncio.sleep(self.slow.get(name, 0))
        if name in self.broken:
            raise UnexpectedError(name)
        if name in self.lost:
            self.lost.remove(name)
            raise _unanswered(name)


def _unanswered(point: str) -> LessorError:
    """Return the exception for a missing answer of AWS or the store, depending on the point."""
    called = point.partition(" ")[0]
    if called.islower():
        return StoreUnavailable(f"the store did not answer {called}", retry_in=1.0)
    return AwsUnknown(AwsAnswer(called, "ReadTimeoutError"), sent=True)


@dataclass(slots=True)
class World:
    """The engine with its fakes; tests inspect ``iam``, ``aws``, ``store`` and ``events``."""

    iam: Iam
    other_iam: Iam
    aws: MemoryAws
    store: MemoryStore
    points: Points
    clocks: Clocks
    limits: EngineConfig
    seed: int
    meter: Meter = NO_METER
    events: Recording = field(default_factory=Recording)
    reports: Reports = field(default_factory=Reports)
    lives: int = 0
    _engine: Engine | None = None
    _life: asyncio.Task[None] | None = None
    _outsiders: frozenset[asyncio.Task[object]] = frozenset()

    @property
    def engine(self) -> Engine:
        """Return the running engine."""
        assert self._engine is not None, "no engine runs"
        return self._engine

    def now(self) -> float:
        """Return the loop's time in seconds."""
        return asyncio.get_running_loop().time()

    async def start(self) -> None:
        """Start a process on the current state of store and AWS."""
        self._outsiders = frozenset(asyncio.all_tasks())
        loop = asyncio.get_running_loop()
        self.points.dead = False
        self.lives += 1
        if self.lives > 1:
            self.store.restart()
        ready: asyncio.Future[Engine] = loop.create_future()
        self._life = loop.create_task(self._live(ready))
        self._engine = await ready

    async def _live(self, ready: asyncio.Future[Engine]) -> None:
        rng = random.Random(f"{self.seed}/{self.lives}")
        outside = Dependencies(
            self.store, self.aws, self._keyring(), self.events, self.reports, rng, meter=self.meter
        )
        async with run_engine(outside, self.limits) as engine:
            ready.set_result(engine)
            await asyncio.get_running_loop().create_future()

    def _keyring(self) -> PlainKeyring:
        """Return the keyring of a new process."""
        keyring, store = PlainKeyring(), self.store
        store.data_keys = store.data_keys or [keyring.first]
        keyring.load(store.data_keys)
        store.seals = keyring
        return keyring

    async def kill(self) -> None:
        """End the process and its callers' handlers immediately."""
        self.points.dead, self.points.die_at = True, None
        doomed = asyncio.all_tasks() - self._outsiders
        for task in doomed:
            task.cancel()
        if doomed:
            await asyncio.wait(doomed)
        self._engine = self._life = None

    async def stop(self) -> None:
        """End the engine; raise what it ended with by itself, if it did, and what it reported: defects."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
            if not life.cancelled():
                life.result()
        self.reports.require_none()

    async def set_up(self, mount: Mount, role: Role) -> None:
        """Enable the mount, give it its root, write the role."""
        await self.engine.mounts.enable(mount, "test")
        await self.set_root(mount.name)
        await self.put_role(role)

    async def set_root(self, mount: str = "aws", key_id: str = builders.ROOT_KEY) -> None:
        """Set a mount's root to the one with this key id."""
        await self.engine.mounts.set_root(mount, "", lambda _: builders.root_config(key_id), "test")

    async def put_role(self, role: Role) -> None:
        """Write a role."""
        await self.engine.roles.put(role.mount, role.name, "", lambda _: role, "test")

    async def issue(
        self,
        ttl: float | None = None,
        seconds: float = 60.0,
        role: str = "app",
        mount: str = "aws",
        *,
        request: str = "",
        wait_usable: float | None = 0.0,
        options: SessionOptions = session.NO_OPTIONS,
        labels: Mapping[str, str] | None = None,
        owner: str = "alice",
        grant: Grant = EVERYTHING,
    ) -> Credentials:
        """Issue a credential; ``ttl``, ``seconds`` and ``wait_usable`` in seconds; ``request`` is an id."""
        span = None if ttl is None else timedelta(seconds=ttl)
        same = Request(request, f"{role} for {ttl}") if request else None
        wish = IssueRequest(mount, role, owner, span, grant, same, wait_usable, options, labels or {})
        return await self.engine.issuer.generate(wish, seconds)

    async def attempt(self, role: str = "app") -> Credentials | LessorError:
        """Issue a credential and return it, or the caller's error."""
        try:
            return await self.issue(role=role)
        except LessorError as error:
            return error

    async def revoke(self, lease_id: str, *, sync: bool = True) -> Revocation:
        """Revoke a lease as a caller does."""
        return await self.engine.leases.revoke(LeaseId.parse(lease_id), sync=sync, by="bob")

    async def renew(self, lease_id: str, seconds: float) -> Lease:
        """Renew a lease as a caller does."""
        span = timedelta(seconds=seconds)
        return (await self.engine.leases.renew(LeaseId.parse(lease_id), span, "bob")).lease

    async def lease(self, lease_id: str) -> Lease:
        """Return a lease by its id."""
        return await self.engine.leases.lookup(LeaseId.parse(lease_id))

    def states(self) -> Mapping[str, State]:
        """Return the stored state of every lease, by id."""
        return {lease_id: row.lease.state for lease_id, row in self.store.rows.items()}

    def users(self) -> list[str]:
        """Return the names of the users on the account."""
        return [user.name for user in self.iam.users.values()]

    async def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until ``holds()``; fail the test if that takes too long.

        It is checked every millisecond for 10 s, and then ten times a second.
        """
        start = self.now()
        while not holds():
            waited = self.now() - start
            assert waited < seconds, f"not so after {seconds:g} s"
            await asyncio.sleep(0.001 if waited < 10 else 0.1)

    async def until_gone(self, seconds: float = 7200.0) -> None:
        """Wait until every lease is a tombstone; fail the test if that takes longer than ``seconds``."""
        until = self.now() + seconds
        while any(state is not State.GONE for state in self.states().values()):
            assert self.now() < until, f"not all is gone after {seconds:g} s: {self.states()}"
            await asyncio.sleep(1.0)


@asynccontextmanager
async def world(
    *,
    seed: int = 0,
    latency: float = 0.05,
    visible_after: float = 0.0,
    limits: EngineConfig | None = None,
    mount: Mount | None = None,
    role: Role | None = None,
    meter: Meter = NO_METER,
) -> AsyncIterator[World]:
    """Create a world with a running engine, a mount, its root and a role; ``latency`` is in seconds."""
    points, clocks = Points(), Clocks()
    store = MemoryStore(clocks, points)

    def iam(account: str) -> Iam:
        return Iam(account, now=clocks.aws, rng=random.Random(seed), visible_after=visible_after)

    mine, other = iam(builders.ACCOUNT.rpartition(":")[2]), iam(OTHER_ACCOUNT)
    for group in ("staff", "readers"):
        mine.create_group(group)
    aws = MemoryAws({builders.ROOT_KEY: mine, builders.OTHER_ROOT_KEY: other}, points, latency)
    made = World(mine, other, aws, store, points, clocks, limits or EngineConfig(), seed, meter)
    await made.start()
    try:
        await made.set_up(mount or builders.mount(), role or builders.role())
        yield made
    except BaseException:
        made.reports.take()  # the test has failed already, and its own error says more
        raise
    finally:
        await made.stop()


async def bound(w: World) -> None:
    """Issue once, so that the root's account is known, and clear the recorded calls and points."""
    made = await w.issue()
    await w.revoke(made.lease.id)
    w.aws.sent.clear()
    w.points.passed.clear()
