"""Checks that a malformed row of SQLite fails only the calls that need it."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.login_tokens import login_calls, login_token
from tests.support.malformed import Case, cases, damage, loosen
from tests.support.plain_keyring import PlainKeyring
from tests.support.stores import START_US, HandClock, bench, intent

from lessor_server.adapters.sql.keyring import UNREADABLE_HOLD
from lessor_server.adapters.sqlite.store import FILE, SqliteStore, open_store
from lessor_server.adapters.sqlite.stored_keys import read_stored_keys
from lessor_server.domain.errors.base import LessorError, RowUnreadable
from lessor_server.domain.events import Event, UnreadableRow
from lessor_server.domain.lease import Lease, Orphan, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.domain.rotation import Rotation, root_subject, static_subject
from lessor_server.engine.ports import Store
from lessor_server.engine.store_types import BulkRevocation, ClaimTerms

HOUR_US = 3_600_000_000
LATER_US = START_US + 10 * HOUR_US
TERMS = ClaimTerms("test", timedelta(minutes=2))
GOOD = "good"
"""The mount whose rows stay as they are."""

KEYS = {
    "mounts": "name = 'aws'",
    "roots": "mount = 'aws'",
    "roles": "mount = 'aws'",
    "rotations": "subject LIKE 'aws/%'",
    "prefixes": "low = 'aws/'",
    "meta": "key = 'high_water_us'",
    "lease_counts": "mount = 'aws'",
}
REPORTED = ("mounts", "roots", "roles", "rotations")
"""Tables of which most of these values are no values at all; elsewhere many a text is as good as another."""


async def fill(folder: Path) -> Lease:
    """Write a database with a row of each kind for two mounts, and loosen its schema; return a lease."""
    async with bench("sqlite", folder) as b:
        await b.store.put_mount(None, builders.mount(GOOD))
        await b.store.put_root(builders.stored_root(GOOD), 0)
        for mount in ("aws", GOOD):
            await b.store.put_role(builders.role(mount_name=mount), None)
            for subject in (root_subject(mount), static_subject(mount, "app")):
                assert await b.store.add_rotation(Rotation(subject, current=f"AKIA{mount}")) is not None
            await b.active(0, id=f"{mount}/creds/app/{intent().id[-24:]}", mount=mount)
            await b.store.open_prefix(IdRange.of_mount(f"{mount}"))
        await b.store.set_expiry_hold("")
        lease = await b.row(intent().id)
    loosen(folder)
    return lease


@asynccontextmanager
async def opened(folder: Path, events: list[Event] | None = None) -> AsyncIterator[SqliteStore]:
    """Open the store hours later, when every lease has expired."""
    answer: list[Event] = [] if events is None else events
    async with open_store(folder, HandClock(wall=LATER_US), answer.append) as store:
        yield store


async def tried(job: Awaitable[object]) -> object:
    """Return an answer of the store, or the error that is its answer: ours, or what SQLite says of a row."""
    try:
        return await job
    except (LessorError, sqlite3.Error) as error:
        return error


Calls = dict[str, Awaitable[object]]


def lease_calls(b: Store, lease: Lease) -> Calls:
    """Call each method about a lease."""
    claim, moment = lease, timedelta(minutes=1)
    return {
        "begin": b.begin(intent(10**6), moment),
        "write, activate": lease_steps.activate(b, claim, "AKIA"),
        "write, replace_key": lease_steps.replace_key(b, lease, "AKIA"),
        "write, mark_undelivered": lease_steps.mark_undelivered(b, lease),
        "write, abort_intent": lease_steps.abort(b, claim, "why", 0),
        "write, renew": lease_steps.renew(b, lease, LATER_US),
        "revoke": b.revoke(lease.id),
        "reopen": b.reopen(lease.id, 0),
        "claim": b.claim([lease.id], TERMS),
        "claim_due": b.claim_due(TERMS, 10),
        "write, reschedule": lease_steps.reschedule(b, claim, "why", moment, 1, 0),
        "write, finish": lease_steps.finish(b, claim),
        "void_stale_claims": b.void_stale_claims(),
        "list_due_within": b.list_due_within(moment, 10),
        "get": b.get(lease.id),
        "get, salvage": b.get(lease.id, salvage=True),
        "renew": b.renew(lease.id, lambda one, _: one),
        "get_owner": b.get_owner(lease.id),
        "is_current": b.is_current(lease),
        "get_bound_account": b.get_bound_account(lease.mount),
        "page": b.page(EVERYTHING, None, "", 10),
        "page, of an owner": b.page(EVERYTHING, None, "", 10, lease.owner),
        "count": b.count(EVERYTHING, None),
        "count, of an owner": b.count(EVERYTHING, None, lease.owner),
        "list_owners": b.list_owners("", 10),
    }


def config_calls(b: Store, lease: Lease) -> Calls:
    """Call each method about mounts, roots and roles."""
    root = builders.stored_root(version=2)
    return {
        "load_issue_context": b.load_issue_context(lease.mount, lease.role, lease.owner, "request"),
        "get_mount": b.get_mount(lease.mount),
        "put_mount": b.put_mount(builders.mount(), builders.mount(max_users=7)),
        "put_mount, new": b.put_mount(None, builders.mount("another")),
        "list_mounts": b.list_mounts("", 10),
        "mount_names": b.mount_names("", 10),
        "get_root": b.get_root(lease.mount),
        "put_root": b.put_root(root, 1),
        "bind_account": b.bind_account(lease.mount, 1, builders.ACCOUNT),
        "get_role": b.get_role(lease.mount, lease.role),
        "put_role": b.put_role(builders.role(), "0"),
        "list_roles": b.list_roles(lease.mount, "", 10),
        "delete_role": b.delete_role(lease.mount, "another"),
    }


def upkeep_calls(b: Store, lease: Lease) -> Calls:
    """Call each method about many leases, and about the store itself."""
    prefix = BulkRevocation(IdRange.of_mount(lease.mount), LATER_US)
    return {
        "open_prefix": b.open_prefix(IdRange("aws/creds/", "aws/creds0")),
        "open_prefix, of an owner": b.open_prefix(IdRange("aws/creds/", "aws/creds0"), lease.owner),
        "prefixes": b.prefixes(),
        "mark_range_revoking": b.mark_range_revoking(prefix, "", 10),
        "close_prefix": b.close_prefix(prefix),
        "progress": b.progress(prefix),
        "abandon": b.abandon(IdRange.of_mount(lease.mount), 10, live=True),
        "leases_by_user_name": b.leases_by_user_name([lease.footprint.user_name]),
        "purge_tombstones": b.purge_tombstones(builders.ACCOUNT, LATER_US),
        "purge_tombstones, of sessions": b.purge_tombstones("", 0),
        "status": b.status(),
        "measure_leases": b.measure_leases(),
        "set_expiry_hold": b.set_expiry_hold(""),
        "lower_clock": b.lower_clock(),
        "disable": b.disable("another"),
        "remove_disabled": b.remove_disabled(),
        "adopt": b.adopt(Orphan("aws/creds/lost/x", "aws", "lost", lease.footprint)),
    }


def rotation_calls(b: Store, lease: Lease) -> Calls:
    """Call each method about rotations."""
    none, root = frozenset[str](), builders.stored_root(version=2)
    static = Rotation(static_subject(lease.mount, lease.role), generation=1)
    return {
        "add_rotation": b.add_rotation(Rotation("aws/static-creds/new", user_id="AIDA")),
        "get_rotation": b.get_rotation(static.subject),
        "list_static": b.list_static(lease.mount, "", 10),
        "find_static_holder": b.find_static_holder("AKIAaws", ""),
        "find_replacing_rotation": b.find_replacing_rotation("AKIAaws"),
        "list_unfinished_of_removed_mounts": b.list_unfinished_of_removed_mounts(),
        "list_static_of_disabled": b.list_static_of_disabled(),
        "forget_static": b.forget_static(lease.mount),
        "claim_rotation": b.claim_rotation(static.subject),
        "claim_rotations": b.claim_rotations(10, none),
        "next_rotation_us": b.next_rotation_us(none),
        "move_rotation": b.move_rotation(static, done=True),
        "switch_root": b.switch_root(static, root),
        "forget_rotation": b.forget_rotation(static),
    }


def keyring_calls(b: Store, lease: Lease) -> Calls:
    """Call each method about data keys; they pass over rows that can't be read."""
    keyring = PlainKeyring()
    return {
        "list_data_keys": b.list_data_keys(),
        "begin_keyring": b.begin_keyring(keyring.first, keyring),
        "unlock": b.unlock(keyring),
        "add_data_key": b.add_data_key(replace(keyring.first, id="another")),
        "reseal_mount": b.reseal_mount(""),
        "reseal_leases": b.reseal_leases(lease.id[:-1], 10),
        "drop_data_keys": b.drop_data_keys("another"),
    }


def calls(b: Store, lease: Lease) -> Calls:
    """Call each method of the store, about a lease, its mount and its role."""
    parts = (lease_calls, config_calls, upkeep_calls, rotation_calls, keyring_calls)
    found = {name: call for part in parts for name, call in part(b, lease).items()}
    return found | login_calls(b, login_token(0, LATER_US))


async def all_answers(store: Store, lease: Lease) -> dict[str, object]:
    """Call all methods together, so that their jobs share a batch, and return their answers."""
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(tried(job)) for name, job in calls(store, lease).items()}
    return {name: task.result() for name, task in tasks.items()}


async def test_every_method_of_the_store_is_in_the_table(tmp_path: Path) -> None:
    """Except the backup, which reads no row."""
    lease = await fill(tmp_path)
    async with opened(tmp_path) as store:
        methods = {name for name, _ in inspect.getmembers(Store, inspect.iscoroutinefunction)}
        answers = await all_answers(store, lease)
        assert {name.partition(",")[0] for name in answers} == methods - {"backup"}
        assert not [name for name, answer in answers.items() if isinstance(answer, RowUnreadable)]


@pytest.mark.parametrize("table", KEYS)
async def test_a_malformed_row_is_an_error_of_the_calls_that_need_it(tmp_path: Path, table: str) -> None:
    lease = await fill(tmp_path)
    untouched = (tmp_path / FILE).read_bytes()
    of_good = f"{GOOD}/creds/app/{lease.id[-24:]}"
    answer: dict[str, list[Event]] = {}
    for case in (one for one in cases(tmp_path) if one.table == table):
        (tmp_path / FILE).write_bytes(untouched)
        if not damage(tmp_path, case, KEYS[table]):
            continue
        events = answer[str(case)] = []
        async with opened(tmp_path, events) as store:
            await all_answers(store, lease)
            context = await store.load_issue_context(GOOD, "app")
            assert None not in (context.mount, context.root, context.role), str(case)
            assert isinstance(await store.get(of_good), Lease), str(case)
            assert GOOD in {mount.name for mount in await store.list_mounts("", 10)}, str(case)
            assert await store.get_rotation(root_subject(GOOD)), str(case)
    assert len(answer) >= 8
    reported = {
        case for case, events in answer.items() if any(isinstance(one, UnreadableRow) for one in events)
    }
    assert len(reported) >= len(answer) // 3 or table not in REPORTED, sorted(answer.keys() - reported)


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "x'00'", "NULL", "7"])
async def test_an_unreadable_hold_holds_until_expiry_is_resumed(tmp_path: Path, value: str) -> None:
    await fill(tmp_path)
    assert damage(tmp_path, Case("meta", "value", value, "no text"), "key = 'held'")
    async with opened(tmp_path) as store:
        assert (await store.status()).expiry_hold == ("7" if value == "7" else UNREADABLE_HOLD)
        assert await store.claim_due(TERMS, 10) == []
        await store.set_expiry_hold("")
        assert (await store.status()).expiry_hold == ""
        assert await store.claim_due(TERMS, 10) != []


# --- leases ---------------------------------------------------------------------------------------------


def multiply(folder: Path, damaged: list[Case]) -> dict[str, Case]:
    """Give each case a lease of its own, between leases that stay as they are; return the cases by id."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("DELETE FROM leases WHERE mount <> 'aws'")
        names = [row[1] for row in connection.execute("PRAGMA table_info(leases)").fetchall()]
        others = ", ".join(name for name in names if name not in ("id", "user_name"))
        connection.execute("BEGIN")
        for number in range(1, 2 * len(damaged) + 1):
            made = intent(number)
            connection.execute(
                f"INSERT INTO leases (id, user_name, {others}) SELECT ?, ?, {others} FROM leases"
                " WHERE id = ?",
                (made.id, made.footprint.user_name, intent().id),
            )
        connection.execute("COMMIT")
    found = ((intent(2 * number + 1).id, case) for number, case in enumerate(damaged))
    return {lease_id: case for lease_id, case in found if damage(folder, case, f"id = '{lease_id}'")}


async def claim_all(store: Store, room: int) -> list[str]:
    """Claim what is due as the engine does, some at a time; return the ids in order."""
    claimed: list[str] = []
    while some := await store.claim_due(TERMS, room):
        assert len(some) <= room
        claimed += [claim.id for claim in some]
    return claimed


async def test_malformed_leases_delay_no_others(tmp_path: Path) -> None:
    await fill(tmp_path)
    of_leases = [case for case in cases(tmp_path) if case.table == "leases"]
    given = multiply(tmp_path, [case for case in of_leases if case.what != "null"])
    good = {intent(number).id for number in range(0, 2 * len(given), 2)} - given.keys()
    events: list[Event] = []
    async with opened(tmp_path, events) as store:
        listed: list[str] = []
        while page := await store.page(EVERYTHING, None, listed[-1] if listed else "", 7):
            listed += [lease.id for lease in page]
        assert listed == sorted(set(listed))
        assert good <= set(listed)
        for lease_id in given:
            answer = await tried(store.get(lease_id))
            assert answer is None or isinstance(answer, (Lease, RowUnreadable)), str(given[lease_id])
        await store.void_stale_claims()
        claimed = await claim_all(store, 10)
        assert good <= set(claimed)
        needed = {"id", "mount", "account", "user_name", "state"}
        missed = {str(given[one]) for one in given.keys() - set(claimed) if given[one].column not in needed}
        assert missed == set()
        assert await claim_all(store, 10) == []
    keys = {event.key for event in events if isinstance(event, UnreadableRow)}
    assert len(keys) > 150
    assert not good & keys


@pytest.mark.parametrize("column", ["max_ttl_us", "policy_arns", "request_digest", "inline_policy", "owner"])
async def test_a_lease_with_a_malformed_column_is_revoked_and_read_again(tmp_path: Path, column: str) -> None:
    lease = await fill(tmp_path)
    assert damage(tmp_path, Case("leases", column, "x'ff'", "bytes"), f"id = '{lease.id}'")
    async with opened(tmp_path) as store:
        assert isinstance(await tried(store.get(lease.id)), RowUnreadable)
        for found in (await store.revoke(lease.id), await store.get(lease.id, salvage=True)):
            assert found is not None
            assert (found.state, found.footprint.user_name) == (State.REVOKING, lease.footprint.user_name)


async def test_an_unreadable_row_is_retried_when_its_claim_ends(tmp_path: Path) -> None:
    """It is reported once."""
    await fill(tmp_path)
    damage(tmp_path, Case("leases", "account", "x'00'", "bytes"), "mount = 'aws'")
    events: list[Event] = []
    clock = HandClock(wall=LATER_US)
    async with open_store(tmp_path, clock, events.append) as store:
        await store.close_prefix(BulkRevocation(IdRange.of_mount("aws"), START_US))
        for _ in range(3):
            assert [claim.mount for claim in await store.claim_due(TERMS, 10)] in ([GOOD], [])
            clock.advance(60)
            assert await store.claim_due(TERMS, 10) == []
            clock.advance(61)
    assert [event.key for event in events if isinstance(event, UnreadableRow)] == [intent().id]


async def test_a_lease_without_a_due_time_ends_at_its_expiry(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active(0)
    loosen(tmp_path)
    damage(tmp_path, Case("leases", "due_us", "'soon'", "a text"))
    clock = HandClock(wall=lease.expires_us - 1_000_000)
    async with open_store(tmp_path, clock) as store:
        await store.void_stale_claims()
        assert await store.claim_due(TERMS, 10) == []
        clock.advance(1)
        assert [claim.id for claim in await store.claim_due(TERMS, 10)] == [lease.id]


@pytest.mark.parametrize("value", ["'soon'", "x'00'", str(2**63 - 1)])
async def test_a_rotation_without_a_due_time_is_due_after_a_start(tmp_path: Path, value: str) -> None:
    async with bench("sqlite", tmp_path) as b:
        made = await b.store.add_rotation(Rotation("aws/root"))
        assert made is not None
        await b.store.move_rotation(made, done=True)
    assert damage(tmp_path, Case("rotations", "due_us", value, "no instant"))
    async with opened(tmp_path) as store:
        await store.void_stale_claims()
        assert await store.next_rotation_us(frozenset()) == store.now()
        assert [row.subject for row in await store.claim_rotations(1, frozenset())] == ["aws/root"]


async def test_a_call_that_needs_a_malformed_row_changes_nothing_and_the_rest_of_its_batch_is_kept(
    tmp_path: Path,
) -> None:
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active(0)
        added = await b.store.add_rotation(Rotation("aws/root"))
        assert added is not None
        await b.store.move_rotation(added, done=True)
    assert damage(tmp_path, Case("rotations", "phase", "'DOZING'", "no phase"))
    later_us = lease.expires_us + HOUR_US
    async with open_store(tmp_path, HandClock()) as store:
        async with asyncio.TaskGroup() as group:
            bad = group.create_task(tried(store.claim_rotation("aws/root")))
            kept = group.create_task(lease_steps.renew(store, lease, later_us))
        assert isinstance(bad.result(), RowUnreadable)
        assert kept.result() is not None
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT claimed FROM rotations").fetchall() == [(0,)]
        assert connection.execute("SELECT expires_us FROM leases").fetchall() == [(later_us,)]


async def test_a_malformed_lease_can_be_revoked(tmp_path: Path) -> None:
    """If its revocation does not need the malformed columns."""
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active(0)
    damage(tmp_path, Case("leases", "expires_us", "'never'", "a text"))
    async with open_store(tmp_path, HandClock()) as store:
        revoked = await store.revoke(lease.id)
        assert revoked is not None
        assert revoked.state is State.REVOKING
        (claim,) = await store.claim([lease.id], TERMS)
        assert claim.footprint == lease.footprint
        assert await lease_steps.finish(store, claim)


async def test_a_repaired_row_is_no_longer_reported(tmp_path: Path) -> None:
    await fill(tmp_path)
    damage(tmp_path, Case("roles", "body", "'{bad'", "bad JSON"), KEYS["roles"])
    async with opened(tmp_path) as store:
        with pytest.raises(RowUnreadable, match="row aws/app of roles"):
            await store.get_role("aws", "app")
        assert list((await store.status()).unreadable_rows) == ["roles aws/app: is not JSON"]
        assert await store.delete_role("aws", "app")
        assert await store.put_role(builders.role(), None)
        assert await store.get_role("aws", "app") is not None
        assert list((await store.status()).unreadable_rows) == []


async def test_an_unreadable_mount_is_still_found_by_its_key(tmp_path: Path) -> None:
    """Otherwise a key that it uses could be deleted."""
    await fill(tmp_path)
    damage(tmp_path, Case("mounts", "max_users", "'many'", "a text"), KEYS["mounts"])
    async with opened(tmp_path) as store:
        assert [mount.name for mount in await store.list_mounts("", 10)] == [GOOD]
        assert await store.mount_names("", 10) == ["aws", GOOD]
        assert await store.mount_names("aws", 10) == [GOOD]
        assert await store.mount_names("", 1) == ["aws"]


async def test_an_unreadable_sealing_key_id_is_taken_from_a_sealed_value(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        assert isinstance(b.store, SqliteStore)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute("INSERT INTO meta VALUES ('sealing_key', '0123456789abcdef')")
    assert read_stored_keys(tmp_path / FILE).sealing_key_id == "0123456789abcdef"
    for value in ("x'00'", "'short'", "7"):
        assert damage(tmp_path, Case("meta", "value", value, "no id"), "key = 'sealing_key'")
        stored = read_stored_keys(tmp_path / FILE)
        assert (stored.sealing_key_id, stored.sealed_values) == ("", (b"sealed",))


# --- what the store knows of itself -----------------------------------------------------------------------


async def test_a_lost_instance_id_is_taken_from_a_lease(tmp_path: Path) -> None:
    """With a new id all users would look like those of another installation."""
    async with bench("sqlite", tmp_path) as b:
        instance = (await b.store.status()).instance_id
        made = intent(0)
        path = f"/lessor/{instance}/"
        await b.active(0, footprint=type(made.footprint)(builders.ACCOUNT, made.footprint.user_name, path))
    for value in ("x'00'", "'short'", "CAST(x'ff' AS TEXT)", "NULL"):
        loosen(tmp_path) if value == "NULL" else None
        assert damage(tmp_path, Case("meta", "value", value, "a bad id"), "key = 'instance'")
        async with opened(tmp_path) as store:
            assert (await store.status()).instance_id == instance


async def test_a_path_that_is_not_utf_8_is_not_used_for_the_instance_id(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.active(0)
        await b.active(1)
    assert damage(tmp_path, Case("meta", "value", "x'00'", "a bad id"), "key = 'instance'")
    path = Case("leases", "user_path", "CAST(x'2f6c6573736f722fff2f' AS TEXT)", "no UTF-8")
    assert damage(tmp_path, path, f"id = '{intent(0).id}'")
    untouched = (tmp_path / FILE).read_bytes()
    async with opened(tmp_path) as store:
        assert (await store.status()).instance_id == intent(1).footprint.user_path.split("/")[2]
    (tmp_path / FILE).write_bytes(untouched)
    assert damage(tmp_path, path)
    async with opened(tmp_path) as store:
        assert len((await store.status()).instance_id) == 16


@pytest.mark.parametrize("value", ["'soon'", "x'00'", "-5", "0", str(2**63 - 1)])
async def test_after_a_lost_high_water_mark_the_time_begins_at_the_newest_lease(
    tmp_path: Path, value: str
) -> None:
    """It does not count as a first start, so AWS is asked."""
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active(0)
    assert damage(tmp_path, Case("meta", "value", value, "no instant"), "key = 'high_water_us'")
    async with open_store(tmp_path, HandClock(wall=START_US - 10 * HOUR_US)) as store:
        assert not (await store.status()).first_start
        assert store.now() == lease.issue_us


@pytest.mark.parametrize("column", ["attempts", "looks"])
async def test_a_count_that_no_answer_can_contain_is_unreadable(tmp_path: Path, column: str) -> None:
    """It would fail the whole page of a list."""
    lease = await fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute(f"UPDATE leases SET {column} = 3000000000 WHERE id = ?", (lease.id,))
    async with opened(tmp_path) as store:
        with pytest.raises(RowUnreadable):
            await store.get(lease.id)
        assert lease.id not in {one.id for one in await store.page(EVERYTHING, None, "", 100)}
