"""Checks the fail-over to a synchronous standby: the store finds the new primary, and no answer is lost."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.access_server import free_port
from tests.support.hand_clock import HandClock
from tests.support.postgres import BINARIES, PostgresProcess, as_nobody, own_postgres
from tests.support.postgres_store import HandDatabaseClock
from tests.support.stores import SPAN

from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.store import Opening, PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.events import Event, StoreBack, StoreFailed
from lessor_server.domain.lease import State

SYNCHRONOUS = {"synchronous_standby_names": "*", "wal_level": "replica", "max_wal_senders": "4"}


@contextmanager
def standby_of(primary: PostgresProcess) -> Iterator[PostgresProcess]:
    """Run a standby of a server."""
    folder = Path(tempfile.mkdtemp(prefix="lessor-standby-"))
    standby = PostgresProcess(folder, free_port())
    try:
        standby.own_folder()
        url = f"postgresql://lessor@/postgres?host={primary.folder}&port={primary.port}"
        command = [BINARIES / "pg_basebackup", "-D", standby.data, "-d", url, "-R", "-c", "fast", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, **as_nobody())
        standby.start()
        yield standby
    finally:
        if standby.process is not None:
            standby.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def store_leases(
    store: PostgresStore, first: int, states: dict[int, State | None], stop: asyncio.Event
) -> None:
    """Store and activate leases one after the other until ``stop``; note what was answered."""
    for number in itertools.count(first):
        if stop.is_set():
            return
        try:
            lease = await store.begin(builders.intent(number), SPAN)
            active = await lease_steps.activate(store, lease, "AKIA")
            states[number] = active.state if active else None
        except StoreUnavailable:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_promoted_standby_is_found_and_has_all_that_was_answered() -> None:
    events: list[Event] = []
    answered: dict[int, State | None] = {}
    stop = asyncio.Event()
    with own_postgres(port=free_port(), **SYNCHRONOUS) as primary, standby_of(primary) as standby:
        primary.create_database("lessor")
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        target = DatabaseTarget(f"postgresql://lessor@{hosts}/lessor")
        clock = HandDatabaseClock(HandClock())
        alone = DatabaseTarget(f"postgresql://lessor@127.0.0.1:{standby.port}/postgres")
        with pytest.raises(DatabaseRefused, match="only reads"):
            async with open_postgres(alone, clock):
                pass
        async with open_postgres(target, clock, Opening(notify=events.append)) as store:
            await store.put_mount(None, builders.mount())
            await store.put_root(builders.stored_root(), 0)
            async with asyncio.TaskGroup() as group:
                for worker in range(4):
                    group.create_task(store_leases(store, 10_000 * worker, answered, stop))
                while len(answered) < 20:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(standby.run, "SELECT pg_promote()")
                await asyncio.to_thread(standby.run, "ALTER SYSTEM SET synchronous_standby_names = ''")
                await asyncio.to_thread(standby.run, "SELECT pg_reload_conf()")
                while not any(isinstance(event, StoreFailed) for event in events):
                    await asyncio.sleep(0.01)
                async with asyncio.timeout(10):
                    while not isinstance(events[-1], StoreBack):
                        await asyncio.sleep(0.1)
                stop.set()
            assert isinstance(events[0], StoreFailed)
            assert answered
            for number, state in answered.items():
                lease = await store.get(builders.intent(number).id)
                assert lease is not None
                assert lease.state is state is State.ACTIVE
