"""A process that writes to a store until it is killed; it prints each acknowledged row.

Run as ``python -m tests.support.store_writer FOLDER``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.sqlite.store import open_store
from lessor_server.engine.ports import Store
from tests.support import builders, lease_steps
from tests.support.stores import SPAN, intent

WRITERS = 8


async def write(folder: Path) -> None:
    """Begin and activate leases without end, several at a time."""
    numbers = itertools.count()
    async with open_store(folder, SystemClock()) as store:
        await store.put_mount(None, builders.mount())
        await store.put_root(builders.stored_root(), 0)
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(_write_some(store, numbers))


async def _write_some(store: Store, numbers: itertools.count[int]) -> None:
    for number in numbers:
        claim = await store.begin(intent(number, max_users=10**9), SPAN)
        await lease_steps.activate(store, claim, "AKIA")
        sys.stdout.write(f"{claim.id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
