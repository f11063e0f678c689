"""Concurrent callers of every kind, and the answers that the server must keep."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from lessor.v1 import lease_pb2
from tests.fire.environment import MOUNT, ROLES, Environment, ends, now, user_of
from tests.support.clients import Lessor

Code = grpc.StatusCode
Outcome = lease_pb2.RevokeLeaseResponse.Outcome

APP, BULK = ROLES
REFUSED = (Code.FAILED_PRECONDITION, Code.NOT_FOUND)
"""The errors of the renewal of an ended lease."""
CUT_OFF = (Code.UNAVAILABLE, Code.ABORTED, Code.CANCELLED)
"""The errors when a server dies, or when a prefix was revoked during an issue."""
STOPPED = Code.DEADLINE_EXCEEDED
"""The error if a server was stopped for longer than it waits for a message: its timer comes first."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much callers request: ttls, increments, the number of issuers and their pause.

    With ``sweeps`` every third lease is of a role whose prefix is revoked repeatedly. With ``stops`` servers
    are stopped for a while, too.
    """

    ttls: tuple[int, ...] = (1, 2, 4, 600)
    increments: tuple[int, ...] = (1, 3, 600)
    issuers: int = 6
    pause: float = 0.02
    sweeps: bool = True
    stops: bool = False


@dataclass(slots=True)
class Promise:
    """What the answers to a caller promise of one lease.

    Attributes:
        ends: The expiry that was last acknowledged, seconds since 1970.
        certain: No later request is unanswered, and no other caller may end it.
        over: Its end was asked for, and acknowledged.
    """

    lease_id: str
    role: str
    user: str
    key: str
    ends: float
    certain: bool
    over: bool = False


class Callers:
    """Issues, renews, revokes and ends by prefix until stopped, whatever happens to the server."""

    def __init__(self, environment: Environment, rng: random.Random, load: Load = Load()) -> None:
        """Call the server of ``environment``; ``rng`` draws who does what to which lease."""
        self.promises: dict[str, Promise] = {}
        self.outcomes: Counter[str] = Counter()
        self.unheard_of: list[str] = []
        """Errors that no kill explains."""
        self._environment = environment
        self._rng = rng
        self._load = load
        self._young: deque[Promise] = deque(maxlen=200)
        self._stopped = False
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Let no caller begin anything until ``go_on``."""
        self._open.clear()

    def go_on(self) -> None:
        """Let callers begin again."""
        self._open.set()

    def stop(self) -> None:
        """Let every caller end after what it does now."""
        self._stopped = True
        self._open.set()

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Start every caller in ``group``."""
        pause = self._load.pause
        for _ in range(self._load.issuers):
            group.create_task(self._again(self._issue, pause))
        for _ in range(2):
            group.create_task(self._again(self._renew, pause))
            group.create_task(self._again(self._revoke, 3 * pause))
        if self._load.sweeps:
            group.create_task(self._again(self._sweep, 0.4))

    async def _again(self, step: Callable[[Lessor], Awaitable[None]], pause: float) -> None:
        while not self._stopped:
            try:
                async with self._environment.connect() as lessor:
                    while not self._stopped:
                        await self._open.wait()
                        await step(lessor)
                        await asyncio.sleep(pause)
            except grpc.aio.AioRpcError as error:
                self._hear(step.__name__, error)
                await asyncio.sleep(0.05)

    def _hear(self, step: str, error: grpc.aio.AioRpcError) -> None:
        self.outcomes[error.code().name] += 1
        if error.code() not in CUT_OFF and not (self._load.stops and error.code() is STOPPED):
            self.unheard_of.append(f"{step}: {error.code().name} {error.details()}")

    async def _issue(self, lessor: Lessor) -> None:
        role = BULK if self._load.sweeps and self._rng.random() < 1 / 3 else APP
        made = await lessor.generate(MOUNT, role, ttl=self._rng.choice(self._load.ttls))
        self.outcomes["issued"] += 1
        # Where prefixes are revoked, a lease may end before its answer arrives.
        promise = Promise(
            made.lease_id, role, user_of(made), made.access_key, ends(made), certain=role == APP
        )
        self.promises[made.lease_id] = promise
        self._young.append(promise)

    async def _renew(self, lessor: Lessor) -> None:
        promise = self._drawn()
        if promise is None:
            return
        promise.certain = False
        try:
            renewed = await lessor.renew(promise.lease_id, self._rng.choice(self._load.increments))
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSED:
                raise
            self.outcomes["renewal refused"] += 1
            return
        self.outcomes["renewed"] += 1
        promise.ends, promise.certain = renewed.expire_time.ToMicroseconds() / 1e6, True

    async def _revoke(self, lessor: Lessor) -> None:
        promise = self._drawn()
        if promise is None:
            return
        promise.certain = False
        answer = await lessor.revoke(promise.lease_id, sync=self._rng.random() < 0.5)
        if answer.outcome == Outcome.UNKNOWN:
            self.unheard_of.append(f"{promise.lease_id} is forgotten")
        self.outcomes["revoked"] += 1
        promise.over = True

    async def _sweep(self, lessor: Lessor) -> None:
        known = [promise for promise in self.promises.values() if promise.role == BULK]
        request = lease_pb2.RevokePrefixRequest(prefix=f"{MOUNT}/creds/{BULK}/")
        async for _ in lessor.leases.RevokePrefix(request):
            break
        self.outcomes["prefix revoked"] += 1
        for promise in known:
            promise.over = True

    def _drawn(self) -> Promise | None:
        """Draw a young live lease that no other caller uses."""
        living = [
            promise
            for promise in self._young
            if promise.certain and not promise.over and promise.ends > now()
        ]
        return self._rng.choice(living) if living else None
