"""Opens the store that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.postgres.clock import DatabaseWall
from lessor_server.adapters.postgres.store import Opening, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable
from lessor_server.adapters.sqlite.store import FILE, open_store
from lessor_server.adapters.sqlite.stored_keys import read_file_schema
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import WrappedKey
from lessor_server.settings.model import Settings, StoreSettings

Verify = Callable[[StoredKeys], Awaitable[RowSeals | None]]


class OpenedStore(Store, Protocol):
    """The store of a server, whose rows are checked from ``unlock`` on."""

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on; with ``accept`` take rows as they are if that is unclear."""
        ...

    def measure_commits(self, on_commit: Callable[[float], None]) -> None:
        """Call ``on_commit`` with the seconds of each transaction that writes."""
        ...

    async def rewrap_data_keys(self, keys: Sequence[WrappedKey]) -> None:
        """Replace how all data keys are wrapped, in one transaction."""
        ...


def target_of(store: StoreSettings) -> DatabaseTarget:
    """Return the PostgreSQL database of the settings."""
    return DatabaseTarget(store.url, store.ca_file, store.password_file)


def _require_newest(file: Path) -> None:
    """Raise ``DatabaseUnusable`` if a start would migrate the file."""
    found, newest = read_file_schema(file)
    if 0 < found < newest:
        raise DatabaseUnusable(
            f"{file} has schema {found}, and this version needs {newest}", fix="remove store.migrate = false"
        )


@asynccontextmanager
async def open_store_of(settings: Settings, notify: Observer, verify: Verify) -> AsyncIterator[OpenedStore]:
    """Open the store, whose sealing key ``verify`` checks first, and serve it while the block runs.

    Raises:
        DatabaseRefused, DatabaseUnusable, DirectoryLocked: The database cannot be used.
    """
    if not settings.store.is_shared:
        if settings.store.migrate is False:
            await asyncio.to_thread(_require_newest, settings.data_dir / FILE)
        async with open_store(settings.data_dir, SystemClock(), notify, verify) as local:
            yield local
        return
    opening = Opening(settings.store.migrate, notify, verify)
    async with open_postgres(target_of(settings.store), DatabaseWall(SystemClock()), opening) as shared:
        yield shared
