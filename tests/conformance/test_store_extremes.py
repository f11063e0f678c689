"""Checks rows with numbers at their limits: each row and all steps from it are readable or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.support import builders, lease_steps
from tests.support.login_tokens import FIXED, digest, login_token
from tests.support.malformed import Case, damage, loosen
from tests.support.stores import Bench, HandClock, bench, intent

from lessor_server.adapters.identity.login_judge import LoginRules, judge_login
from lessor_server.adapters.sql import columns
from lessor_server.adapters.sqlite.migrate import migrations
from lessor_server.adapters.sqlite.store import FILE, SqliteStore, open_store
from lessor_server.domain import backoff, ttl
from lessor_server.domain.access.access_config import AccessConfig
from lessor_server.domain.access.acl import Acls
from lessor_server.domain.access.login_token import MAX_DEPTH, renew_token
from lessor_server.domain.durations import MAX_DURATION
from lessor_server.domain.errors.base import RowUnreadable, Unauthenticated
from lessor_server.domain.events import Event, UnreadableRow
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.rotation import Phase, Rotation, root_subject
from lessor_server.engine.store_types import ClaimTerms
from lessor_server.services import config, lease, role, static_role

TERMS: Final = ClaimTerms("test", timedelta(minutes=2))
LEASE_COLUMNS: Final = {
    "generation": columns.MAX_NUMBERED,
    "due_us": columns.MAX_US,
    "ttl_us": columns.MAX_SPAN_US,
    "max_ttl_us": columns.MAX_SPAN_US,
    "created_us": columns.MAX_NOW_US,
    "issue_us": columns.MAX_NOW_US,
    "last_renewal_us": columns.MAX_NOW_US,
    "expires_us": columns.MAX_US,
    "max_expires_us": columns.MAX_US,
    "attempts": backoff.MAX_COUNT,
    "looks": backoff.MAX_COUNT,
    "last_create_us": columns.MAX_US,
    "gone_us": columns.MAX_NOW_US,
    "untaken": 1,
}
MOUNT_COLUMNS: Final = {
    "default_lease_ttl_us": columns.MAX_SPAN_US,
    "max_lease_ttl_us": columns.MAX_SPAN_US,
    "max_users": backoff.MAX_COUNT,
    "lease_us": columns.MAX_SPAN_US,
    "lease_max_us": columns.MAX_SPAN_US,
    "created_us": columns.MAX_NOW_US,
}
ROLE_MEMBERS: Final = {
    "default_sts_ttl": columns.MAX_SPAN_US,
    "max_sts_ttl": columns.MAX_SPAN_US,
    "default_ttl": columns.MAX_SPAN_US,
    "max_ttl": columns.MAX_SPAN_US,
    "max_leases": backoff.MAX_COUNT,
}
ROTATION_COLUMNS: Final = {
    "generation": columns.MAX_NUMBERED,
    "due_us": columns.MAX_US,
    "late_us": columns.MAX_US,
    "attempts": backoff.MAX_COUNT,
    "claimed": 1,
}
ROTATION_MEMBERS: Final = {
    "period_us": columns.MAX_SPAN_US,
    "window_us": columns.MAX_SPAN_US,
    "live_keys": 2,
    "next_us": columns.MAX_US,
    "retire_us": columns.MAX_US,
}
LOGIN_COLUMNS: Final = {
    "depth": MAX_DEPTH,
    "ttl_us": columns.MAX_SPAN_US,
    "created_us": columns.MAX_NOW_US,
    "renewed_us": columns.MAX_NOW_US,
    "expires_us": columns.MAX_US,
    "max_expires_us": columns.MAX_US,
    "renewable": 1,
}
NOT_READ: Final = ("gone_us", "claimed")
"""Columns that statements alone look at."""


def extremes(limit: int) -> list[int]:
    """Return the values that a column is tried with whose greatest readable one is ``limit``."""
    return sorted({-1, 0, 1, limit, limit + 1, 2**63 - 1})


async def get(b: Bench, lease_id: str) -> Lease | None:
    """Return a lease as a caller is shown it, or None where its row is unreadable."""
    try:
        found = await b.row(lease_id)
    except RowUnreadable:
        return None
    lease._lease(found, b.store.now())
    return found


async def changes(b: Bench, lease_id: str) -> None:
    """Change a lease in every way there is, and read it after each change."""

    async def read() -> Lease:
        found = await get(b, lease_id)
        assert found is not None
        return found

    row = await read()
    if row.state is State.INTENT:
        activate = await lease_steps.activate(
            b.store, row, "AKIA", ends_us=2**62 if row.not_found_count else 0
        )
        assert activate is not None
        row = await read()
    await lease_steps.replace_key(b.store, row, "AKIA")
    row = await read()
    term = ttl.Term(row.ttl, row.issue_us, row.expires_us, row.max_expires_us)
    await lease_steps.renew(b.store, row, ttl.renewal(b.store.now(), None, term, MAX_DURATION).expires_us)
    await lease_steps.mark_undelivered(b.store, await read())
    await read()
    await b.store.revoke(lease_id)
    await read()
    for claim in await b.store.claim([lease_id], TERMS):
        attempts, looks = backoff.counted(claim.attempts), backoff.counted(claim.not_found_count)
        assert await lease_steps.reschedule(
            b.store, claim, "why", backoff.refused(attempts, 0.0), attempts, looks
        )
        await read()
    await b.store.reopen(lease_id, b.store.now())
    await read()
    for claim in await b.store.claim([lease_id], TERMS):
        assert await lease_steps.finish(b.store, claim)
    await read()


@pytest.mark.parametrize("state", [State.INTENT, State.ACTIVE])
@pytest.mark.parametrize("column", LEASE_COLUMNS)
async def test_all_steps_from_a_readable_lease_are_readable(
    tmp_path: Path, column: str, state: State
) -> None:
    values = extremes(LEASE_COLUMNS[column])
    ids = {intent(number).id: value for number, value in enumerate(values)}
    async with bench("sqlite", tmp_path) as b:
        for number in range(len(values)):
            await (b.begun(number) if state is State.INTENT else b.active(number))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        for lease_id, value in ids.items():
            connection.execute(f"UPDATE leases SET {column} = ? WHERE id = ?", (value, lease_id))
    events: list[Event] = []
    async with open_store(tmp_path, HandClock(), events.append) as store:
        b = Bench(store, HandClock())
        readable = {lease_id for lease_id in ids if await get(b, lease_id) is not None}
        unreadable = {one.key for one in events if isinstance(one, UnreadableRow)}
        assert readable == ids.keys() - unreadable
        kept = {ids[lease_id] for lease_id in readable}
        assert (max(kept) == LEASE_COLUMNS[column] and -1 not in kept) or column in NOT_READ
        for lease_id in readable:
            await changes(b, lease_id)
        await store.void_stale_claims()
        listed = {one.id for one in await store.page(EVERYTHING, None, "", 1000)}
        assert readable <= listed
    async with open_store(tmp_path, HandClock()) as store:
        assert None not in [await get(Bench(store, HandClock()), lease_id) for lease_id in readable]


# --- mounts, roles and roots ----------------------------------------------------------------------------


async def issues(store: SqliteStore, number: int) -> None:
    """Issue a lease under the mount and the role there are, and read it."""
    context = await store.load_issue_context("aws", "app")
    assert context.mount is not None
    assert context.role is not None
    assert context.root is not None
    config._mount(context.mount)
    role.role_message(context.role)
    granted = ttl.grant(None, context.role, context.mount)
    wanted = intent(
        number,
        ttl=granted.ttl,
        max_ttl=granted.max_ttl,
        max_users=context.mount.max_users,
        max_leases=context.role.max_leases,
        root_version=context.root.version,
    )
    activate = await lease_steps.activate(store, await store.begin(wanted, timedelta(minutes=2)), "AKIA")
    assert activate is not None
    lease._lease(activate, store.now())


async def fill(folder: Path) -> None:
    """Write a mount with its root and a role."""
    async with bench("sqlite", folder) as b:
        await b.store.put_role(builders.role(), None)
    loosen(folder)


def damaged(folder: Path, table: str, column: str, limit: int) -> Iterator[int]:
    """Yield each extreme once the file is as it was but for a column, or for a member of its body."""
    content = (folder / FILE).read_bytes()
    for value in extremes(limit):
        (folder / FILE).write_bytes(content)
        is_member = column in (*ROLE_MEMBERS, *ROTATION_MEMBERS)
        written = f"json_set(body, '$.{column}', {value})" if is_member else str(value)
        assert damage(folder, Case(table, "body" if is_member else column, written, "an extreme"))
        yield value


def is_reported(events: list[Event], table: str) -> bool:
    """Tell whether a row of the table is one that the log names."""
    return any(isinstance(one, UnreadableRow) and one.table == table for one in events)


@pytest.mark.parametrize("column", MOUNT_COLUMNS)
async def test_all_steps_from_a_readable_mount_are_readable(tmp_path: Path, column: str) -> None:
    await fill(tmp_path)
    read = []
    for value in damaged(tmp_path, "mounts", column, MOUNT_COLUMNS[column]):
        events: list[Event] = []
        async with open_store(tmp_path, HandClock(), events.append) as store:
            try:
                mount = await store.get_mount("aws")
            except RowUnreadable:
                assert is_reported(events, "mounts")
                continue
            assert mount is not None
            await (issues(store, 1) if mount.max_users else store.get_mount("aws"))
            assert await store.put_mount(mount, replace(mount, description="changed"))
            assert await store.get_mount("aws") is not None
            read.append(value)
    assert max(read) == MOUNT_COLUMNS[column]
    assert -1 not in read


@pytest.mark.parametrize("member", ROLE_MEMBERS)
async def test_all_steps_from_a_readable_role_are_readable(tmp_path: Path, member: str) -> None:
    await fill(tmp_path)
    read = []
    for value in damaged(tmp_path, "roles", member, ROLE_MEMBERS[member]):
        events: list[Event] = []
        async with open_store(tmp_path, HandClock(), events.append) as store:
            try:
                found = await store.get_role("aws", "app")
            except RowUnreadable:
                assert is_reported(events, "roles")
                continue
            assert found is not None
            await issues(store, 1)
            assert await store.put_role(replace(found, etag="1"), "0")
            assert await store.get_role("aws", "app") is not None
            read.append(value)
    assert max(read) == ROLE_MEMBERS[member]
    assert -1 not in read


async def test_a_root_of_the_greatest_version_is_not_replaced(tmp_path: Path) -> None:
    await fill(tmp_path)
    read = []
    for value in damaged(tmp_path, "roots", "version", columns.MAX_NUMBERED):
        events: list[Event] = []
        async with open_store(tmp_path, HandClock(), events.append) as store:
            try:
                root = await store.get_root("aws")
            except RowUnreadable:
                assert is_reported(events, "roots")
                continue
            assert root is not None
            await issues(store, 1)
            after = replace(root, version=root.version + 1)
            if value == columns.MAX_NUMBERED:
                with pytest.raises(RowUnreadable):
                    await store.put_root(after, root.version)
            else:
                assert await store.put_root(after, root.version)
            assert await store.get_root("aws") is not None
            read.append(value)
    assert max(read) == columns.MAX_NUMBERED
    assert -1 not in read


# --- rotations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.RETIRING])
@pytest.mark.parametrize("column", [*ROTATION_COLUMNS, *ROTATION_MEMBERS])
async def test_all_steps_from_a_readable_rotation_are_readable(
    tmp_path: Path, column: str, phase: Phase
) -> None:
    await fill(tmp_path)
    async with open_store(tmp_path, HandClock()) as store:
        made = await store.add_rotation(
            Rotation(root_subject("aws"), phase=phase, current="AKIA", retire_us=9)
        )
        assert made is not None
        assert await store.move_rotation(made, done=True)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        if column == "window_us":
            connection.execute("UPDATE rotations SET body = json_set(body, '$.cron', '0 3 * * *')")
    read = []
    limit = (ROTATION_COLUMNS | ROTATION_MEMBERS)[column]
    for value in damaged(tmp_path, "rotations", column, limit):
        events: list[Event] = []
        async with open_store(tmp_path, HandClock(), events.append) as store:
            try:
                row = await store.get_rotation(root_subject("aws"))
            except RowUnreadable:
                assert is_reported(events, "rotations")
                continue
            assert row is not None
            static_role._message(row)
            await store.void_stale_claims()
            claimed = await store.claim_rotation(row.subject)
            assert claimed is not None
            attempts = backoff.counted(claimed.attempts)
            failed = replace(claimed, attempts=attempts, next_us=claimed.schedule.next_us(store.now()))
            moved = await store.move_rotation(failed, done=False)
            assert moved is not None
            assert await store.move_rotation(replace(moved, due_us=moved.idle_due_us()), done=True)
            await store.void_stale_claims()
            assert await store.get_rotation(row.subject) is not None
            read.append(value)
    assert (max(read) == limit and -1 not in read) or column in NOT_READ


# --- the clock and the counts ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", extremes(columns.MAX_START_US))
async def test_a_stored_time_at_its_limit_leads_to_no_time_beyond_it(tmp_path: Path, value: int) -> None:
    await fill(tmp_path)
    assert damage(tmp_path, Case("meta", "value", f"'{value}'", "an extreme"), "key = 'high_water_us'")
    clock = HandClock()
    for number in (1, 2):
        async with open_store(tmp_path, clock) as store:
            await issues(store, number)
            clock.advance(60)
            await issues(store, number + 10)
            assert not list((await store.status()).unreadable_rows) or number == 1
            assert store.now() <= columns.MAX_NOW_US


@pytest.mark.parametrize("column", ["n", "users"])
async def test_an_invalid_count_is_counted_again_at_a_start(tmp_path: Path, column: str) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.store.put_role(builders.role(), None)
        await b.active(1)
    content = (tmp_path / FILE).read_bytes()
    numbers = extremes(backoff.MAX_COUNT // 2)
    for value in (*numbers, "'many'", "1.5", "x'00'"):
        (tmp_path / FILE).write_bytes(content)
        assert damage(tmp_path, Case("lease_counts", column, str(value), "no count"), "state = 'ACTIVE'")
        events: list[Event] = []
        async with open_store(tmp_path, HandClock(), events.append) as store:
            await issues(store, 2)
            counted = {one.state: one.count for one in await store.count(EVERYTHING, None)}
            if value not in (0, 1, *((backoff.MAX_COUNT // 2,) if column == "n" else ())):
                assert counted == {State.ACTIVE: 2}
                assert is_reported(events, "lease_counts")
            assert max(counted.values()) <= backoff.MAX_COUNT


@pytest.mark.parametrize("column", LOGIN_COLUMNS)
async def test_a_login_token_with_an_extreme_number_is_judged_or_unreadable(
    tmp_path: Path, column: str
) -> None:
    clock, rules = HandClock(), LoginRules(AccessConfig(), Acls({}), FIXED.digest, lambda _: None)
    async with open_store(tmp_path, clock) as store:
        await store.add_login_token(login_token(0, store.now(), identity="root"), 1000)
    content = (tmp_path / FILE).read_bytes()
    for value in extremes(LOGIN_COLUMNS[column]):
        (tmp_path / FILE).write_bytes(content)
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
            connection.execute(f"UPDATE login_tokens SET {column} = ?", (value,))
        async with open_store(tmp_path, clock) as store:
            least = columns.SECOND_US if column == "ttl_us" else 0
            if not least <= value <= LOGIN_COLUMNS[column]:
                with pytest.raises(RowUnreadable, match="login_tokens"):
                    await store.read_login_chain(digest(0))
                continue
            (token,) = await store.read_login_chain(digest(0))
            with suppress(Unauthenticated):
                judge_login(rules, (token,), store.now(), 0.0)
            renewed = renew_token(token, store.now(), MAX_DURATION)
            if await store.renew_login_token(renewed):
                assert await store.read_login_chain(digest(0)) == (renewed,)
            await store.purge_login_tokens(10)


def test_every_column_of_numbers_is_tested() -> None:
    """Except the cut-off of prefixes, and which data key is active: they are only compared."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for _, script in migrations():
            connection.executescript(script)
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        found = {
            (table, column)
            for table in tables
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall()
            if kind == "INTEGER"
        }
    assert found == {
        *(("leases", column) for column in LEASE_COLUMNS),
        *(("mounts", column) for column in MOUNT_COLUMNS),
        *(("rotations", column) for column in ROTATION_COLUMNS),
        *(("login_tokens", column) for column in LOGIN_COLUMNS),
        ("roots", "version"),
        ("sealing_keys", "active"),
        ("lease_counts", "n"),
        ("lease_counts", "users"),
        ("prefixes", "cutoff_us"),
    }
