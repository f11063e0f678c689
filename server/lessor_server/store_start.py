"""Opens the store that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.postgres.clock import DatabaseWall
from lessor_server.adapters.postgres.store import Opening, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sqlite.store import open_store
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.settings.model import Settings, StoreSettings

Verify = Callable[[StoredKeys], Awaitable[RowSeals | None]]


class OpenedStore(Store, Protocol):
    """The store of a server, whose rows are checked from ``unlock`` on."""

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on; with ``accept`` take rows as they are if that is unclear."""
        ...


def target_of(store: StoreSettings) -> DatabaseTarget:
    """Return the PostgreSQL database of the settings."""
    return DatabaseTarget(store.url, store.ca_file, store.password_file)


@asynccontextmanager
async def open_store_of(settings: Settings, notify: Observer, verify: Verify) -> AsyncIterator[OpenedStore]:
    """Open the store, whose sealing key ``verify`` checks first, and serve it while the block runs.

    Raises:
        DatabaseRefused, DatabaseUnusable, DirectoryLocked: The database cannot be used.
    """
    if not settings.store.is_shared:
        async with open_store(settings.data_dir, SystemClock(), notify, verify) as local:
            yield local
        return
    opening = Opening(settings.store.migrate, notify, verify)
    async with open_postgres(target_of(settings.store), DatabaseWall(SystemClock()), opening) as shared:
        yield shared
