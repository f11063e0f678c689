"""Opens each kind of store with a clock that a test moves, for suites that test them by the same rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.domain.events import Event
from lessor_server.domain.lease import Intent, Lease
from lessor_server.engine.ports import Store
from lessor_server.engine.store_types import ClaimTerms
from tests.support import builders, lease_steps
from tests.support.hand_clock import START_US, HandClock
from tests.support.memory_store import MemoryStore
from tests.support.plain_keyring import open_keyring
from tests.support.postgres_store import open_on_postgres

__all__ = ["OPENERS", "SPAN", "START_US", "TERMS", "Bench", "HandClock", "bench", "intent"]

SPAN = timedelta(minutes=2)
TERMS = ClaimTerms("test", SPAN)


Opener = Callable[[Path, HandClock], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def open_memory(_: Path, clock: HandClock) -> AsyncIterator[Store]:
    """Open a store in memory."""
    yield MemoryStore(clock)


@asynccontextmanager
async def open_sealed(
    folder: Path, clock: HandClock, notify: Callable[[Event], None] = lambda _: None
) -> AsyncIterator[SqliteStore]:
    """Open a store on SQLite with the keyring of the tests, as a start does."""
    async with open_store(folder, clock, notify) as store:
        await open_keyring(store)
        yield store


OPENERS: dict[str, Opener] = {"memory": open_memory, "sqlite": open_sealed, "postgres": open_on_postgres}


@dataclass(frozen=True, slots=True)
class Bench:
    """A store with a mount and a bound root, and its clock."""

    store: Store
    clock: HandClock

    async def begun(self, number: int = 0, span: timedelta = SPAN, **changes: Any) -> Lease:
        """Store the intent of a lease."""
        return await self.store.begin(intent(number, **changes), span)

    async def active(self, number: int = 0, **changes: Any) -> Lease:
        """Store an ACTIVE lease."""
        lease = await lease_steps.activate(self.store, await self.begun(number, **changes), f"AKIA{number}")
        assert lease is not None
        return lease

    async def taken(self, number: int = 0, **changes: Any) -> Lease:
        """Store a lease, mark it for revocation and claim it."""
        lease = await self.active(number, **changes)
        await self.store.revoke(lease.id)
        (claim,) = await self.store.claim([lease.id], TERMS)
        return claim

    async def row(self, lease_id: str) -> Lease:
        """Return a lease that must exist."""
        lease = await self.store.get(lease_id)
        assert lease is not None
        return lease


def intent(number: int = 0, **changes: Any) -> Intent:
    """Return the intent of a lease."""
    return builders.intent(number, **changes)


@asynccontextmanager
async def bench(kind: str, folder: Path, clock: HandClock | None = None) -> AsyncIterator[Bench]:
    """Open a store of this kind with a mount and a root."""
    clock = clock or HandClock()
    async with OPENERS[kind](folder, clock) as store:
        await store.put_mount(None, builders.mount())
        await store.put_root(builders.stored_root(), 0)
        yield Bench(store, clock)
