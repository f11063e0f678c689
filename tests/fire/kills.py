"""Kills the server repeatedly under load of every kind, and checks its acknowledged answers."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

import grpc

from lessor.v1 import lease_pb2
from tests.fire.environment import BOUND, Environment, Figures, each, keys_of, now
from tests.fire.promises import Callers
from tests.support.clients import lease_of
from tests.support.standin_control import Json

State = lease_pb2.Lease.State
MAX_LIFE = 0.6
"""Seconds that a server is left alive, beside its checks."""
SOUND = {"ok", "NULL value in prefixes.high"}
"""What SQLite says of a sound database. SQLite 3.40 says the second of every open prefix: it takes one column
for another in a table WITHOUT ROWID whose key is not its first columns."""


async def kills(environment: Environment, times: int, rng: random.Random, rest_every: int = 10) -> Figures:
    """Kill the server so many times at random moments; AssertionError for the first broken promise.

    After each start every user on AWS and every lease that was answered must be found. After each
    ``rest_every``-th and the last, callers rest, and all that should be over must be gone.
    """
    callers = Callers(environment, rng)
    checks = Checks(environment, callers)
    async with asyncio.TaskGroup() as group:
        callers.begin(group)
        try:
            for number in range(1, times + 1):
                await asyncio.sleep(rng.uniform(0, MAX_LIFE))
                await environment.process.kill()
                await asyncio.to_thread(sound, environment.process.data_dir)
                await environment.start()
                await checks.remembers()
                if number % rest_every == 0 or number == times:
                    await checks.rests()
        finally:
            callers.stop()
    await checks.remembers(of_old=True)
    assert await environment.process.stop() == 0
    await asyncio.to_thread(sound, environment.process.data_dir)
    assert callers.unheard_of == [], callers.unheard_of
    figures: Figures = {"kills": times, "leases": len(callers.promises)}
    return figures | dict(callers.outcomes)


class Checks:
    """Checks AWS and the store between two kills."""

    def __init__(self, environment: Environment, callers: Callers, patience: float = 0.0) -> None:
        """Check the promises to ``callers``; leases may end ``patience`` seconds later than the bound."""
        self._environment = environment
        self._callers = callers
        self._patience = patience
        self._checked = 0

    async def remembers(self, *, of_old: bool = False) -> None:
        """Assert that each user's lease and each answered one are found, ``of_old`` those of all time."""
        users = (await self._environment.aws.users("/lessor/")).values()
        answered = list(self._callers.promises)
        begun = 0 if of_old else self._checked
        self._checked = len(answered)
        await self._looked_up({lease_of(user) for user in users} | set(answered[begun:]))

    async def rests(self) -> None:
        """Hold the callers, wait for the bound, and assert that AWS shows just what was promised."""
        self._callers.hold()
        await asyncio.sleep(BOUND + 0.5)
        late = now() + self._patience
        while True:
            users = await self._environment.aws.users("/lessor/")
            seen = now()
            leases = await self._looked_up({lease_of(user) for user in users.values()})
            wrong = [self._find_wrong(user, leases[lease_of(user)], seen) for user in users.values()]
            over = [one for one in self._callers.promises.values() if one.over and one.user in users]
            if seen >= late or not (any(wrong) or over):
                break
            await asyncio.sleep(0.5)
        assert not any(wrong), [one for one in wrong if one]
        for promise in self._callers.promises.values():
            if promise.over:
                assert promise.user not in users, f"{promise} was ended"
            elif promise.certain and promise.ends > seen + 0.1:
                assert promise.user in users, f"{promise} lives"
                assert keys_of(users[promise.user]) == [promise.key], promise
        self._callers.go_on()

    def _find_wrong(self, user: Json, lease: lease_pb2.Lease, seen: float) -> str:
        if self._patience and lease.state == State.INTENT:
            return ""  # the claim of a server that died on an issue lasts until it ends
        return _wrong(user, lease, seen)

    async def _looked_up(self, lease_ids: set[str]) -> dict[str, lease_pb2.Lease]:
        found: dict[str, lease_pb2.Lease] = {}
        lost: list[str] = []
        async with self._environment.connect() as lessor:

            async def look(lease_id: str) -> None:
                try:
                    found[lease_id] = await lessor.lookup(lease_id)
                except grpc.aio.AioRpcError as error:
                    lost.append(f"{lease_id}: {error.code().name}")

            await each(sorted(lease_ids), look)
        assert lost == [], lost
        return found


def _wrong(user: Json, lease: lease_pb2.Lease, seen: float) -> str:
    """Return what is wrong with a user that AWS showed at ``seen``, long after all was asked for."""
    expires = lease.expire_time.ToMicroseconds() / 1e6
    if lease.state == State.ACTIVE and keys_of(user) == [lease.access_key]:
        return ""
    if seen - BOUND < expires < now():
        return ""
    return f"{user['name']} has {keys_of(user)}, {seen - expires:.1f} s after its expiry: {lease}"


def sound(data_dir: Path) -> None:
    """Assert that SQLite finds nothing wrong with a copy of a server's data."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(data_dir, Path(folder) / "data"))
        connection = sqlite3.connect(copy / "lessor.db")
        try:
            found = {row[0] for row in connection.execute("PRAGMA integrity_check").fetchall()}
            nulls = connection.execute("SELECT * FROM prefixes WHERE high IS NULL").fetchall()
        finally:
            connection.close()
    assert found, "SQLite says nothing"
    assert found <= SOUND, found
    assert not nulls
