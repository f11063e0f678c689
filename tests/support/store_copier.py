"""A process that writes backups of a store until it is killed; it prints each acknowledged one.

Run as ``python -m tests.support.store_copier FOLDER``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.support.stores import bench

LEASES = 200


async def copy(folder: Path) -> None:
    """Fill a store, then write one backup after another."""
    async with bench("sqlite", folder) as b:
        async with asyncio.TaskGroup() as group:
            for number in range(LEASES):
                group.create_task(b.active(number))
        for number in itertools.count():
            await b.store.backup(f"copy-{number}.db")
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(copy(Path(sys.argv[1])))
