"""Opens the store on PostgreSQL for tests: one database of this process, emptied for each folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import asyncpg

from lessor_server.adapters.postgres.store import Opening, PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sql.transaction import Transaction
from lessor_server.domain.events import Event
from lessor_server.engine.ports import Store
from tests.support.hand_clock import HandClock
from tests.support.plain_keyring import open_keyring
from tests.support.postgres import database_of_worker, shared_postgres

_EMPTY = """
DELETE FROM leases; DELETE FROM lease_counts; DELETE FROM mounts; DELETE FROM roots; DELETE FROM roles;
DELETE FROM rotations; DELETE FROM prefixes; DELETE FROM sealing_keys; DELETE FROM row_macs;
DELETE FROM replicas; DELETE FROM rate_shares; DELETE FROM lease_events;
DELETE FROM meta WHERE key NOT IN ('configuration', 'replicas', 'lease_events', 'oldest_schema');
UPDATE meta SET value = '0' WHERE key = 'lease_events';
"""


class HandDatabaseClock:
    """A clock moved by hand that stands for the database's too."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def wall_us(self) -> int:
        """Return the wall clock's time."""
        return self._clock.wall_us()

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        return self._clock.boot_us()

    async def sync(self, _: Transaction) -> None:
        """Ask nothing."""


@cache
def _folders() -> list[Path]:
    """Return the folder whose rows the database has, if any."""
    return []


async def url_of(folder: Path) -> str:
    """Return the URI of a database that is empty when a folder is first asked for."""
    url = shared_postgres().url(database_of_worker())
    if _folders() != [folder]:
        _folders()[:] = [folder]
        connection = await asyncpg.connect(url)
        try:
            if await connection.fetchval("SELECT to_regclass('leases')"):
                await connection.execute(_EMPTY)
        finally:
            await connection.close()
    return url


@asynccontextmanager
async def open_plain(
    folder: Path, clock: HandClock, notify: Callable[[Event], None] = lambda _: None
) -> AsyncIterator[PostgresStore]:
    """Open the database of a folder without a keyring."""
    target = DatabaseTarget(await url_of(folder))
    async with open_postgres(
        target, HandDatabaseClock(clock), Opening(notify=notify, is_alone=True)
    ) as store:
        yield store


@asynccontextmanager
async def open_on_postgres(
    folder: Path, clock: HandClock, notify: Callable[[Event], None] = lambda _: None
) -> AsyncIterator[Store]:
    """Open the database of a folder with the keyring of the tests, as a start does."""
    async with open_plain(folder, clock, notify) as store:
        await open_keyring(store)
        yield store
