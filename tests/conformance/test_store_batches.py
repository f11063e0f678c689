"""Checks the connection of the SQLite store, and that each write of a batch succeeds or fails alone."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.sqlite_files import fate, on_disk, pragma
from tests.support.stores import TERMS, Bench, HandClock, bench, intent

from lessor_server.adapters.sql.clock import MARK
from lessor_server.adapters.sqlite import connection
from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.domain import lease as steps
from lessor_server.domain.errors.base import LessorError, MountFull, StoreUnavailable
from lessor_server.domain.events import Event, StoreBack, StoreFailed
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.engine.store_types import BulkRevocation


@pytest.fixture(name="b")
async def opened(tmp_path: Path) -> AsyncIterator[Bench]:
    """Open a store on a disk."""
    async with bench("sqlite", tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("pragma_name", "value"),
    [
        ("synchronous", 2),  # FULL: in WAL mode NORMAL loses commits at a power cut (sqlite.org, pragma.html)
        ("journal_mode", "wal"),
        ("locking_mode", "exclusive"),  # with several connections SQLite 3.7.0 to 3.51.2 can lose commits
        ("temp_store", 2),  # MEMORY: no copy of a row in a folder that others may read
        ("cache_size", -65536),
        ("application_id", 0x4C534F52),
    ],
)
async def test_the_connection_is_durable_and_exclusive(b: Bench, pragma_name: str, value: object) -> None:
    assert await pragma(b, f"PRAGMA {pragma_name}") == value


async def test_a_read_in_a_batch_whose_commit_fails_shows_none_of_its_writes(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    await b.active(0)

    def full(_: sqlite3.Connection) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    b.store._batches.raw.before_commit = full
    async with asyncio.TaskGroup() as group:
        written = group.create_task(fate(b.begun(1)))
        read = group.create_task(b.store.page(EVERYTHING, None, "", 10))
        counted = group.create_task(b.store.count(EVERYTHING, None))
    assert isinstance(written.result(), StoreUnavailable)
    assert [lease.id for lease in read.result()] == [intent(0).id]
    assert sum(one.count for one in counted.result()) == 1


async def test_a_backup_in_a_batch_with_writes_succeeds(b: Bench, tmp_path: Path) -> None:
    await b.active(0)
    async with asyncio.TaskGroup() as group:
        before = group.create_task(b.begun(1))
        copied = group.create_task(b.store.backup("copy.db"))
        after = group.create_task(b.begun(2))
    assert before.result().state is after.result().state is State.INTENT
    with closing(sqlite3.connect(tmp_path / copied.result()[0])) as copy:
        assert copy.execute("SELECT id FROM leases").fetchall() == [(intent(0).id,)]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a defect"),
        sqlite3.IntegrityError("a constraint"),
        sqlite3.OperationalError("malformed JSON"),
        MountFull("full"),
        RecursionError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_of_one_write_rolls_back_only_that_write(
    b: Bench, tmp_path: Path, error: Exception
) -> None:
    assert isinstance(b.store, SqliteStore)
    batches = b.store._batches

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE leases SET owner = 'changed'")
        raise error

    def broken(_: sqlite3.Connection) -> None:
        raise error

    lease = await b.active(0)
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(b.begun(number)) for number in (1, 2)]
        raised = [group.create_task(fate(batches.write(half))), group.create_task(fate(batches.read(broken)))]
        others.append(group.create_task(b.begun(3)))
    assert [task.result() for task in raised] == [error, error]
    assert len({task.result().id for task in others} & on_disk(tmp_path).keys()) == 3
    assert (await b.row(lease.id)).owner == lease.owner


async def test_the_time_is_stored_every_five_seconds(b: Bench) -> None:
    """With each commit it would double what a small one writes."""
    assert isinstance(b.store, SqliteStore)
    said: list[str] = []
    await b.store._batches.read(lambda database: database.set_trace_callback(said.append))
    for number in range(12):
        await b.begun(number)
        b.clock.advance(1)
    marks = [text for text in said if "INSERT INTO meta" in text]
    assert len(marks) == 2


async def test_the_time_is_stored_after_the_clock_was_lowered(tmp_path: Path) -> None:
    clock = HandClock()
    async with bench("sqlite", tmp_path, clock) as b:
        await b.active(0)
        clock.wall -= 86_400 * 10**6
        await b.store.lower_clock()
        clock.advance(60)
        await b.active(1)
        before_us = b.store.now()
    clock.wall, clock.boot = 0, 0
    async with open_store(tmp_path, clock) as store:
        assert before_us - 5_000_000 <= store.now() <= before_us


async def test_a_transaction_that_was_left_open_is_rolled_back_by_the_next_batch(
    b: Bench, tmp_path: Path
) -> None:
    assert isinstance(b.store, SqliteStore)

    def leave_open(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("UPDATE mounts SET max_users = 1")

    await b.store._batches.read(leave_open)
    lease = await b.active(0)
    assert on_disk(tmp_path) == {lease.id: "ACTIVE"}
    mount = await b.store.get_mount("aws")
    assert mount is not None
    assert mount.max_users != 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), "full"], ids=["OSError", "SQLITE_FULL"])
async def test_a_disk_error_during_a_batch_fails_all_its_writes(
    b: Bench, tmp_path: Path, error: OSError | str
) -> None:
    assert isinstance(b.store, SqliteStore)

    def failing(_: sqlite3.Connection) -> None:
        if isinstance(error, OSError):
            raise error
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise full

    async with asyncio.TaskGroup() as group:
        writes = [group.create_task(fate(b.begun(1)))]
        writes.append(group.create_task(fate(b.store._batches.write(failing))))
        writes.append(group.create_task(fate(b.begun(2))))
    assert {type(task.result()) for task in writes} == {StoreUnavailable}
    assert on_disk(tmp_path) == {}
    await b.active(3)


async def test_a_store_error_and_its_end_are_one_event_each(
    tmp_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    events, marks = asyncio.Queue[Event](), asyncio.Queue[int]()
    room = False
    async with open_store(tmp_path, HandClock(), events.put_nowait) as store, asyncio.timeout(20):
        raw = store._batches.raw
        mark = raw.before_commit

        def commit() -> None:
            mark()
            written = raw.execute("SELECT count(*) FROM meta WHERE key = ?", (MARK,)).fetchone()[0]
            loop.call_soon_threadsafe(marks.put_nowait, written)
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")

        raw.before_commit = commit
        for _ in range(2):
            assert isinstance(await fate(store.put_mount(None, builders.mount())), StoreUnavailable)
        assert isinstance(events.get_nowait(), StoreFailed)
        assert [await marks.get() for _ in range(4)] == [1] * 4, "a commit without a write proves nothing"
        assert events.empty()
        room = True
        assert isinstance(await events.get(), StoreBack)
        await store.put_mount(None, builders.mount())
        assert events.empty()


async def test_an_intent_that_nothing_can_have_changed_is_current_without_a_read(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    said: list[str] = []
    begun, other = await b.begun(0), await b.begun(1)
    await b.store._batches.read(lambda database: database.set_trace_callback(said.append))
    assert await b.store.is_current(begun)
    assert said == []
    active = await lease_steps.activate(b.store, begun, "AKIA0")
    assert active is not None
    said.clear()
    assert await b.store.is_current(other)
    assert said == []
    assert not await b.store.is_current(begun)
    assert await b.store.is_current(active)


async def test_a_claim_of_due_leases_leaves_other_intents_current_without_a_read(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    said: list[str] = []
    begun = await b.begun(0)
    due = await b.begun(1, timedelta(0))
    await b.store._batches.read(lambda database: database.set_trace_callback(said.append))
    assert [lease.id for lease in await b.store.claim_due(TERMS, 10)] == [due.id]
    said.clear()
    assert await b.store.is_current(begun)
    assert said == []
    assert not await b.store.is_current(due)


CHANGES: dict[str, Callable[[Bench, Lease], Coroutine[object, object, object]]] = {
    "renew": lambda b, lease: lease_steps.renew(b.store, lease, lease.expires_us + 1),
    "renew in one job": lambda b, lease: b.store.renew(
        lease.id, lambda row, now: steps.renew(row, row.expires_us + 1, now)
    ),
    "replace the key": lambda b, lease: lease_steps.replace_key(b.store, lease, "AKIAOTHER"),
    "revoke": lambda b, lease: b.store.revoke(lease.id),
    "mark a range": lambda b, _: b.store.mark_range_revoking(
        BulkRevocation(IdRange.of_mount("aws"), b.store.now()), "", 10
    ),
    "abandon": lambda b, _: b.store.abandon(IdRange.of_mount("aws"), 10, live=True),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("beside", ["no read", "a read before", "a read after"])
async def test_a_lease_is_read_once_until_it_changes(b: Bench, change: str, beside: str) -> None:
    assert isinstance(b.store, SqliteStore)
    said: list[str] = []
    lease = await b.active(0)
    assert await b.store.get(lease.id) == lease
    await b.store._batches.read(lambda database: database.set_trace_callback(said.append))
    assert await b.store.get(lease.id) == lease
    assert await b.store.get_owner(lease.id) == lease.owner
    assert said == []
    if beside != "no read":
        b.store._leases.drop(lease.id)
    async with asyncio.TaskGroup() as group:
        if beside == "a read before":
            group.create_task(b.store.get(lease.id))
        group.create_task(CHANGES[change](b, lease))
        if beside == "a read after":
            group.create_task(b.store.get(lease.id))
    after = await b.row(lease.id)
    assert after != lease
    b.store._leases.drop(lease.id)
    assert await b.row(lease.id) == after


async def test_a_lease_that_changes_while_its_read_runs_is_read_again(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    lease = await b.active(0)
    loop, began, gate = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    batches = b.store._batches

    def hold(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait(60)

    async def hold_batch() -> None:
        await batches.read(hold)

    async with asyncio.TaskGroup() as group:
        read = group.create_task(b.store.get(lease.id))
        group.create_task(hold_batch())
        await began.wait()
        group.create_task(lease_steps.replace_key(b.store, lease, "AKIAOTHER"))
        await asyncio.sleep(0)
        gate.set()
    assert read.result() == lease
    assert (await b.row(lease.id)).access_key_id == "AKIAOTHER"


async def test_a_lease_that_is_read_while_the_result_of_its_expiry_waits_is_read_again(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(b.store, SqliteStore)
    monkeypatch.setattr(connection, "PATIENT_SECONDS", 60.0)
    await b.active(0, ttl=timedelta(minutes=1))
    b.clock.advance(3600)
    (claimed,) = await b.store.claim_due(TERMS, 1)
    async with asyncio.TaskGroup() as group:
        group.create_task(lease_steps.finish(b.store, claimed))
        await asyncio.sleep(0)
        assert (await b.row(claimed.id)).state is State.REVOKING
        b.store._batches._end_wait()
    assert (await b.row(claimed.id)).state is State.GONE


async def test_a_lease_that_is_due_is_read_again(b: Bench) -> None:
    lease = await b.active(0)
    assert await b.store.get(lease.id) == lease
    b.clock.advance(100_000)
    await b.store.claim_due(TERMS, 10)
    assert (await b.row(lease.id)).state is State.REVOKING


async def test_of_a_row_with_spare_values_nothing_is_kept(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    lease = await b.active(0)
    broken = f"UPDATE leases SET ttl_us = 'x' WHERE id = '{lease.id}'"
    await b.store._batches.write(lambda database: database.execute(broken))
    assert await b.store.get(lease.id, salvage=True) is not None
    assert isinstance(await fate(b.store.get(lease.id)), LessorError)


async def test_a_root_is_read_once_until_the_configuration_changes(b: Bench) -> None:
    assert isinstance(b.store, SqliteStore)
    said: list[str] = []
    first = await b.store.get_root("aws")
    assert first is not None
    await b.store._batches.read(lambda database: database.set_trace_callback(said.append))
    await b.active(0)
    said.clear()
    assert await b.store.get_root("aws") == first
    assert said == []
    assert await b.store.put_root(replace(first, etag="second", version=2), 1)
    second = await b.store.get_root("aws")
    assert second is not None
    assert second.etag == "second"
    async with asyncio.TaskGroup() as group:  # a read beside the change of what it reads is not kept
        group.create_task(b.store.get_root("aws"))
        group.create_task(b.store.put_root(replace(second, etag="third", version=3), 2))
    third = await b.store.get_root("aws")
    assert third is not None
    assert third.etag == "third"


async def test_the_results_of_expiries_are_written_four_at_a_time(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENT_SECONDS", 60.0)
    for number in range(24):
        await b.active(number, ttl=timedelta(minutes=1))
    b.clock.advance(3600)
    claimed = await b.store.claim_due(TERMS, 24)
    commits: list[float] = []
    b.store.measure_commits(commits.append)
    async with asyncio.TaskGroup() as group:
        for lease in claimed:
            group.create_task(lease_steps.finish(b.store, lease))
            for _ in range(1_000):  # a batch would begin meanwhile
                await asyncio.sleep(0)
    assert len(commits) <= 6
    assert {(await b.row(lease.id)).state for lease in claimed} == {State.GONE}


async def test_the_result_of_one_expiry_is_written_soon_and_delays_no_other_job(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await b.active(number, ttl=timedelta(minutes=1))
    b.clock.advance(3600)
    first, second = await b.store.claim_due(TERMS, 2)
    assert await lease_steps.finish(b.store, first)
    monkeypatch.setattr(connection, "PATIENT_SECONDS", 60.0)
    async with asyncio.TaskGroup() as group:
        finishing = group.create_task(lease_steps.finish(b.store, second))
        await asyncio.sleep(0)
        await b.begun(2)
        assert (await b.row(second.id)).state is State.REVOKING
        finishing.cancel()


@pytest.mark.parametrize("change", ["revoke", "claim", "mark a range", "abandon"])
async def test_a_change_in_the_batch_of_an_intent_is_seen_by_the_next_check(b: Bench, change: str) -> None:
    lease_id = intent(0).id
    mount = IdRange.of_mount("aws")
    changes: dict[str, Callable[[], Coroutine[object, object, object]]] = {
        "revoke": lambda: b.store.revoke(lease_id),
        "claim": lambda: b.store.claim([lease_id], TERMS),
        "mark a range": lambda: b.store.mark_range_revoking(BulkRevocation(mount, b.store.now()), "", 10),
        "abandon": lambda: b.store.abandon(mount, 10, live=True),
    }
    async with asyncio.TaskGroup() as group:
        begun = group.create_task(b.begun(0, timedelta(0)))
        group.create_task(changes[change]())
    assert (await b.row(lease_id)).generation != begun.result().generation
    assert not await b.store.is_current(begun.result())
