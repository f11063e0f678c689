"""Reads SQLite while callers write, are cancelled, and commits fail: no answer is older than its question."""

from __future__ import annotations

import asyncio
import errno
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import TERMS, Bench, bench

from lessor_server.adapters.sqlite.store import SqliteStore
from lessor_server.domain import lease as steps
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.store_types import BulkRevocation

STEPS, MAX_CALLS = 3_000, 20
SECOND_US = 10**6
LEASES = "SELECT id, generation, state, due_us, access_key_id, last_error FROM leases"
MOUNT = IdRange.of_mount("aws")
Rows = dict[object, object]


@pytest.fixture(name="b")
async def opened(tmp_path: Path) -> AsyncIterator[Bench]:
    """Open a store on a disk."""
    async with bench("sqlite", tmp_path) as made:
        yield made


class History:
    """The rows after each commit; some commits fail."""

    def __init__(self, store: SqliteStore, rng: random.Random) -> None:
        """Record the commits of ``store``; ``rng`` draws which fail."""
        self._raw = store._batches.raw
        self._mark = self._raw.before_commit
        self._rng = rng
        self.states: list[Rows] = []
        self.known = 0
        """How many commits callers may know of."""
        self._raw.before_commit = self._commit
        store.measure_commits(lambda _: self._learn())

    def _commit(self) -> None:
        self._mark()
        if self._rng.random() < 0.1:
            raise OSError(errno.ENOSPC, "No space left on device")
        found: Rows = {row[0]: row[1:] for row in self._raw.execute(LEASES)}
        found |= dict(self._raw.execute("SELECT mount, etag FROM roots"))
        found |= dict(self._raw.execute("SELECT mount || '/' || name, etag FROM roles"))
        self.states.append(found)

    def _learn(self) -> None:
        self.known = len(self.states)

    async def check(self, ask: Awaitable[object], read: Callable[[Rows], object]) -> None:
        """Assert that the answer was what ``read`` finds in the rows at some time since it was asked for."""
        first = max(self.known - 1, 0)
        answer = await ask
        assert answer in [read(rows) for rows in self.states[first:]]


class Callers:
    """Draws calls of every kind on a few young leases."""

    def __init__(self, b: Bench, rng: random.Random) -> None:
        """Call the store of ``b``."""
        assert isinstance(b.store, SqliteStore)
        self._b, self._store, self._rng = b, b.store, rng
        self.history = History(b.store, random.Random(rng.random()))
        self._made = 0
        self._seen: deque[Lease] = deque(maxlen=20)

    def _draw_id(self) -> str:
        return builders.intent(max(self._made - 1 - int(self._rng.expovariate(0.7)), 0)).id

    async def read(self) -> None:
        """Look something up."""
        store, check = self._store, self.history.check
        lease_id = self._draw_id()
        seen = self._rng.choice(self._seen) if self._seen else None
        match self._rng.randrange(5):
            case 0:
                await check(_etag(store.get_root("aws")), lambda rows: rows.get("aws"))
            case 1:
                role = self._rng.choice(["app", "other"])
                await check(self._find_role(role), lambda rows: rows.get(f"aws/{role}"))
            case 2 if seen is not None:
                await check(
                    store.is_current(seen), lambda rows: _generation(rows, seen.id) == seen.generation
                )
            case _:
                await check(_row(store.get(lease_id)), lambda rows: rows.get(lease_id))

    async def _find_role(self, name: str) -> object:
        found = (await self._store.load_issue_context("aws", name)).role
        return found and found.etag

    async def write(self) -> None:
        """Change something; whatever is refused or fails has changed nothing."""
        change = self._rng.choice([self._write_lease, self._write_lease, self._write_many, self._configure])
        with suppress(LessorError):
            found = await change()
            for lease in found if isinstance(found, list) else [found]:
                if isinstance(lease, Lease):
                    self._seen.append(lease)

    async def _write_lease(self) -> object:
        store, lease_id = self._store, self._draw_id()
        seen = self._rng.choice(self._seen) if self._seen else None
        match self._rng.randrange(8):
            case 0:
                return await store.revoke(lease_id)
            case 2 | 3 if seen is not None and seen.state is State.INTENT:
                return await lease_steps.activate(store, seen, f"AKIA{self._rng.random()}")
            case 2 | 3 if seen is not None and seen.state is State.ACTIVE:
                return await lease_steps.replace_key(store, seen, f"AKIA{self._rng.random()}")
            case 2 if seen is not None:
                return await lease_steps.finish(store, seen)
            case 3 if seen is not None:
                return await lease_steps.reschedule(store, seen, "no", timedelta(seconds=2), 1, 0)
            case 4 | 5 if self._made:
                return await store.renew(lease_id, self._renew)
            case _:
                root = await store.get_root("aws")
                assert root is not None
                self._made += 1
                ttl, span = (timedelta(seconds=self._rng.randrange(1, 60)) for _ in range(2))
                return await self._b.begun(self._made - 1, span, ttl=ttl, root_version=root.version)

    def _renew(self, lease: Lease, now: int) -> Lease:
        if lease.state is not State.ACTIVE or lease.expires_us <= now:
            raise LessorError("not now")
        return steps.renew(lease, now + 30 * SECOND_US, now)

    async def _write_many(self) -> object:
        store, now = self._store, self._store.now()
        match self._rng.randrange(8):
            case 0:
                return await store.mark_range_revoking(BulkRevocation(MOUNT, now - 9 * SECOND_US), "", 3)
            case 1:
                return await store.abandon(MOUNT, 1, live=True)
            case 2:
                return await store.reopen(self._draw_id(), now)
            case 3:
                return await store.lower_clock()
            case 4:
                return await store.claim([self._draw_id()], TERMS)
            case _:
                return await store.claim_due(TERMS, 5)

    async def _configure(self) -> object:
        store, etag = self._store, str(self._rng.random())
        match self._rng.randrange(8):
            case 0:
                root = await store.get_root("aws")
                assert root is not None
                return await store.put_root(replace(root, version=root.version + 1, etag=etag), root.version)
            case 1:
                return await store.put_role(
                    builders.role(self._rng.choice(["app", "other"]), etag=etag), None
                )
            case 2:
                return await store.delete_role("aws", self._rng.choice(["app", "other"]))
            case _:
                return None


async def _row(found: Awaitable[Lease | None]) -> object:
    lease = await found
    if lease is None:
        return None
    return lease.generation, lease.state.value, lease.due_us, lease.access_key_id, lease.last_error


async def _etag(found: Awaitable[object]) -> object:
    return getattr(await found, "etag", None)


def _generation(rows: Rows, lease_id: str) -> object:
    row = rows.get(lease_id)
    return row[0] if isinstance(row, tuple) else None


@pytest.mark.parametrize("seed", range(4))
async def test_no_read_is_older_than_its_question(b: Bench, seed: int) -> None:
    rng = random.Random(seed)
    callers = Callers(b, rng)
    reads = 0.0
    await b.store.set_expiry_hold("")
    async with asyncio.TaskGroup() as group:
        calls: set[asyncio.Task[None]] = set()
        for number in range(STEPS):
            reads = rng.choice([0.5, 0.8, 0.97]) if number % 50 == 0 else reads
            calls.add(group.create_task(callers.read() if rng.random() < reads else callers.write()))
            if rng.random() < 0.03:
                rng.choice(sorted(calls, key=id)).cancel()
            if rng.random() < 0.02:
                b.clock.advance(rng.choice([0.5, 3, 30]))
            for _ in range(rng.choice([0, 0, 1, 4, 20])):
                await asyncio.sleep(0)
            most = 0 if rng.random() < 0.1 or number == STEPS - 1 else MAX_CALLS
            while len(calls) > most:
                _, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            calls = {one for one in calls if not one.done()}
    assert len(callers.history.states) > 50
