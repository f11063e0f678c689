"""Checks what only the SQLite store has: durability, its clock, its lock, and the check of its files."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support.sqlite_files import fate, on_connection, on_disk, pragma
from tests.support.stores import START_US, TERMS, Bench, HandClock, bench, intent

from lessor_server.adapters.sqlite.lock import DirectoryLocked
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable
from lessor_server.adapters.sqlite.store import FILE, open_store
from lessor_server.domain.errors.base import LessorError, MountFull, StoreUnavailable
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import EVERYTHING

T = TypeVar("T")
DAY = 86_400 * 10**6
NEVER = 10**9


@pytest.fixture(name="b")
async def opened(tmp_path: Path) -> AsyncIterator[Bench]:
    """Open a store on a disk."""
    async with bench("sqlite", tmp_path) as made:
        yield made


async def test_an_acknowledged_write_is_on_the_disk(b: Bench, tmp_path: Path) -> None:
    lease = await b.active()
    assert on_disk(tmp_path)[lease.id] == "ACTIVE"


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal"])
@pytest.mark.parametrize("instead", ["nothing", "a copy", "no folder"])
async def test_nothing_is_acknowledged_after_the_files_were_deleted_or_replaced(
    b: Bench, tmp_path: Path, name: str, instead: str
) -> None:
    """The next start would not find it. Reads go on."""
    lease = await b.active()
    file, kept = tmp_path / name, tmp_path.with_name("kept")
    place, content = (tmp_path if instead == "no folder" else file), file.read_bytes()
    place.rename(kept)
    if instead == "a copy":
        file.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"was deleted, moved or replaced .* put it back"):
        await b.begun(1)
    assert await b.store.get(lease.id) == lease
    kept.rename(place)
    assert await b.begun(2)


async def test_concurrent_writes_succeed_or_fail_alone(b: Bench, tmp_path: Path) -> None:
    async def one(number: int) -> str | None:
        try:
            return (await b.begun(number, max_users=60)).id
        except MountFull:
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(100)]
    stored = {task.result() for task in tasks} - {None}
    assert len(stored) == 60
    assert on_disk(tmp_path).keys() == stored


async def test_the_error_of_a_full_mount_says_how_many_leases_are_in_revocation(b: Bench) -> None:
    await b.taken(0)
    await b.active(1)
    with pytest.raises(MountFull, match=r"max_users, 2; 1 of them are being revoked"):
        await b.begun(2, max_users=2)


async def test_concurrent_writes_share_a_commit(b: Bench) -> None:
    said: list[str] = []
    await on_connection(b, lambda connection: connection.set_trace_callback(said.append))
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(b.begun(number))
    await on_connection(b, lambda connection: connection.set_trace_callback(None))
    assert 1 <= said.count("COMMIT") <= 5


async def test_a_cancelled_write_does_not_affect_others_in_its_batch(b: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(b.begun(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
    assert all(task.result().state is State.INTENT for task in tasks[1::2])
    await b.active(99)


async def test_a_read_shows_only_durable_rows(b: Bench, tmp_path: Path) -> None:
    seen: set[str] = set()

    async def read() -> None:
        for _ in range(15):
            shown = {lease.id for lease in await b.store.page(EVERYTHING, None, "", 1000)}
            assert shown <= on_disk(tmp_path).keys()
            seen.update(shown)

    async def write(first: int) -> None:
        for number in range(first, first + 40):
            await b.begun(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        for first in (0, 100, 200):
            group.create_task(write(first))
    assert seen


# --- a disk that is full ---------------------------------------------------------------------------------


async def test_a_full_disk_leaves_no_partial_write(b: Bench, tmp_path: Path) -> None:
    await b.active(0)
    pages = await pragma(b, "PRAGMA page_count")
    assert await pragma(b, f"PRAGMA max_page_count = {pages}") == pages
    stored, failed = [], 0
    for number in range(1, 200):
        try:
            stored.append((await b.begun(number)).id)
        except StoreUnavailable:
            failed += 1
    assert failed > 100
    rows = await b.store.page(EVERYTHING, None, "", 1000)
    assert len(rows) == len(stored) + 1
    assert sum(one.count for one in await b.store.count(EVERYTHING, None)) == len(rows)
    assert on_disk(tmp_path).keys() == {row.id for row in rows}
    await pragma(b, f"PRAGMA max_page_count = {NEVER}")
    assert (await b.active(300)).state is State.ACTIVE


async def test_a_full_disk_fails_a_whole_batch(b: Bench, tmp_path: Path) -> None:
    pages = await pragma(b, "PRAGMA page_count")
    await pragma(b, f"PRAGMA max_page_count = {pages}")

    async def one(number: int) -> str | None:
        try:
            return (await b.begun(number)).id
        except StoreUnavailable:
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(400)]
    answer = {task.result() for task in tasks} - {None}
    assert len(answer) < 400
    assert on_disk(tmp_path).keys() == answer


# --- the clock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [-DAY, -3650 * DAY, DAY])
async def test_the_time_does_not_go_back_after_the_wall_clock_was_set_back(tmp_path: Path, back: int) -> None:
    clock = HandClock()
    async with bench("sqlite", tmp_path, clock) as b:
        await b.active(0)
        clock.advance(60)
        await b.active(1)
        before = b.store.now()
    clock.wall += back
    clock.boot = 0
    async with open_store(tmp_path, clock) as store:
        assert store.now() >= before - 5_000_000
        if back < 0:
            assert store.now() < before + 1_000_000
        clock.advance(7)
        first = store.now()
        clock.wall -= DAY
        assert store.now() == first


async def test_while_open_the_time_follows_the_boot_clock(b: Bench) -> None:
    b.clock.wall += 10 * DAY
    assert b.store.now() == START_US
    b.clock.boot += 3
    assert b.store.now() == START_US + 3


# --- the folder and the file -----------------------------------------------------------------------------


async def refused(folder: Path) -> LessorError:
    """Return the error with which a folder is refused, out of the groups it may come in."""
    try:
        async with open_store(folder, HandClock()):
            pass
    except LessorError as error:
        return error
    except BaseExceptionGroup as errors:
        (inner,) = errors.exceptions
        assert isinstance(inner, LessorError), repr(inner)
        return inner
    pytest.fail("the folder was opened")


async def test_the_error_of_a_second_server_names_the_first_process(b: Bench, tmp_path: Path) -> None:
    error = await refused(tmp_path)
    assert isinstance(error, DirectoryLocked)
    assert str(os.getpid()) in error.message
    await b.active()


async def test_a_folder_can_be_opened_again_after_its_server_ended(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        lease, instance = await b.active(), (await b.store.status()).instance_id
    async with open_store(tmp_path, HandClock()) as store:
        assert await store.get(lease.id) == lease
        assert (await store.status()).instance_id == instance


def make(folder: Path, *statements: str) -> bytes:
    """Write a database of another program; return its bytes."""
    connection = sqlite3.connect(folder / FILE)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return (folder / FILE).read_bytes()


async def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    before = make(tmp_path, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)")
    assert isinstance(await refused(tmp_path), DatabaseUnusable)
    assert (tmp_path / FILE).read_bytes() == before


async def test_a_file_that_is_not_a_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    before = b"these are somebody's notes\n" * 500
    (tmp_path / FILE).write_bytes(before)
    assert isinstance(await refused(tmp_path), DatabaseUnusable)
    assert (tmp_path / FILE).read_bytes() == before


async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.active()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    error = await refused(tmp_path)
    assert isinstance(error, DatabaseUnusable)
    assert "9999" in error.message
    assert (tmp_path / FILE).read_bytes() == before


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.active()
    file = tmp_path / FILE
    content = bytearray(file.read_bytes())
    content[100:4096] = b"\xff" * 3996
    file.write_bytes(content)
    assert isinstance(await refused(tmp_path), DatabaseUnusable)


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-journal"])
async def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert isinstance(await refused(tmp_path), DatabaseUnusable)


@pytest.mark.parametrize("target", ["missing/lessor.db", "."])
async def test_a_link_to_what_is_not_a_file_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / FILE).symlink_to(target)
    assert isinstance(await refused(tmp_path), DatabaseUnusable)


@pytest.mark.parametrize(
    ("statement", "lacks"),
    [
        ("DROP TABLE meta", "the column meta.key"),
        ("DROP TABLE leases", "the column leases.access_key_id"),
        ("DROP TABLE rotations", "the column rotations.attempts"),
        ("ALTER TABLE mounts DROP COLUMN lease_us", "the column mounts.lease_us"),
        ("ALTER TABLE roots RENAME COLUMN sealed TO opened", "the column roots.sealed"),
        ("DROP TRIGGER leases_count_update", "the trigger leases_count_update"),
    ],
)
async def test_a_database_that_lacks_a_part_of_its_schema_is_refused(
    tmp_path: Path, statement: str, lacks: str
) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.active()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(statement)
    error = await refused(tmp_path)
    assert isinstance(error, DatabaseUnusable)
    assert lacks in error.message


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            "CREATE TRIGGER x AFTER UPDATE ON roles BEGIN UPDATE roles SET body = 'wider'; END",
            "the trigger x",
        ),
        (
            (
                "DROP TRIGGER leases_count_insert; CREATE TRIGGER leases_count_insert AFTER INSERT ON leases"
                " BEGIN UPDATE lease_counts SET n = 0; END"
            ),
            "the trigger leases_count_insert",
        ),
        ("CREATE VIEW x AS SELECT * FROM roles", "the view x"),
        (
            "DROP TABLE prefixes; CREATE TABLE prefixes (low TEXT COLLATE NOCASE, cutoff_us, high, owner)",
            "the table prefixes",
        ),
    ],
)
async def test_a_database_with_a_trigger_or_view_of_somebody_else_is_refused(
    tmp_path: Path, statements: str, named: str
) -> None:
    """It could change a row in the very transaction that authenticates the row."""
    async with bench("sqlite", tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(statements)
    error = await refused(tmp_path)
    assert isinstance(error, DatabaseUnusable)
    assert f"{named} of the database is not one that Lessor created" in error.message


async def test_a_table_of_the_operator_stops_no_start(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript("CREATE TABLE notes (text); CREATE INDEX more ON leases (owner); ANALYZE")
    async with open_store(tmp_path, HandClock()) as store:
        assert await store.mount_names("", 1)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
async def test_a_damaged_database_never_causes_a_traceback(tmp_path: Path, share: float) -> None:
    async with bench("sqlite", tmp_path) as b:
        for number in range(50):
            await b.active(number)
    whole = (tmp_path / FILE).read_bytes()
    at = int(len(whole) * share) // 4096 * 4096
    for content in (whole[:at], whole[: at + 100], whole[:at] + b"\xff" * 4096 + whole[at + 4096 :]):
        (tmp_path / FILE).write_bytes(content)
        (tmp_path / f"{FILE}-wal").unlink(missing_ok=True)
        try:
            async with open_store(tmp_path, HandClock()) as store:
                for number in range(50):
                    await fate(store.get(intent(number).id))
                await fate(store.claim_due(TERMS, 10))
                await fate(store.page(EVERYTHING, None, "", 100))
        except LessorError:
            continue


# --- kill -9 ---------------------------------------------------------------------------------------------


async def test_a_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.store_writer", str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    answer = [(await writer.stdout.readline()).decode().strip() for _ in range(300)]
    writer.send_signal(signal.SIGKILL)
    answer += (await writer.stdout.read()).decode().splitlines()
    await writer.wait()
    whole = {line for line in answer if len(line) == len(answer[0])}
    async with open_store(tmp_path, HandClock(wall=START_US)) as store:
        for lease_id in whole:
            lease = await store.get(lease_id)
            assert lease is not None
            assert lease.state is State.ACTIVE
        check = lambda connection: connection.execute("PRAGMA quick_check").fetchone()[0]  # noqa: E731
        assert await on_connection(Bench(store, HandClock()), check) == "ok"
        counted = sum(one.count for one in await store.count(EVERYTHING, None))
        assert counted == len(await store.page(EVERYTHING, None, "", 10**6)) >= len(whole) >= 300


async def test_overdue_leases_are_counted_in_pages(b: Bench) -> None:
    for number in range(7):
        await b.active(number, ttl=timedelta(seconds=1 + number // 3))
    b.clock.advance(2)
    for rows in (1, 2, 3, 6, 7, 100):
        b.store.count_page = rows
        counts = {one.state: one.count for one in (await b.store.measure_leases()).counts}
        assert counts == {State.REVOKING: 6, State.ACTIVE: 1}
