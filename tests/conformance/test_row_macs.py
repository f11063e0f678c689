"""Attacks a database row by row: who has no key can destroy rows, but grants nothing by them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.filled_store import REQUEST, STATIC, context_of, data, filled, lease_id
from tests.support.sealed_store import edit, open_with_keyring, rows_of
from tests.support.stores import SPAN, TERMS

from lessor_server.adapters.sqlite.store import SqliteStore
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.errors.sealing import RowTampered, SealingKeyMismatch
from lessor_server.domain.events import Event, TamperedRow
from lessor_server.domain.lease import Orphan, State
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.mount import MountState
from lessor_server.domain.root import StoredRoot, root_context
from lessor_server.domain.rotation import key_context

__all__ = ["data", "filled", "lease_id"]

LEASE_EDITS = {
    "owner": "'thief'",
    "account": "'aws:999999999999'",
    "user_name": "'billing'",
    "user_path": "'/lessor/ffffffffffffffff/'",
    "credential_type": "'ASSUMED_ROLE'",
    "inline_policy": "''",
    "policy_arns": "'[\"arn:aws:iam::aws:policy/AdministratorAccess\"]'",
    "groups": "'[\"admins\"]'",
    "request_id": "'22222222-2222-4333-8444-555555555555'",
    "request_digest": "'another'",
    "max_expires_us": "max_expires_us + 1",
    "max_ttl_us": "max_ttl_us + 1000000",
    "policy_rule": "'*'",
    "mac": "x''",
}
CONFIG_EDITS = {
    "mounts": {
        "max_lease_ttl_us": "max_lease_ttl_us * 2",
        "default_lease_ttl_us": "default_lease_ttl_us + 1000000",
        "max_users": "max_users + 1",
        "lease_us": "1000000",
        "lease_max_us": "9000000",
        "created_us": "created_us + 1",
        "description": "'another'",
    },
    "roots": {"account": "'aws:999999999999'", "etag": "'another'", "version": "version + 1"},
    "roles": {"body": "replace(body, 's3:Get*', 's3:*')", "etag": "'another'"},
}
KEYS = {"mounts": "name = 'aws'", "roots": "mount = 'aws'", "roles": "mount = 'aws' AND name = 'app'"}


async def test_rows_as_they_were_written_grant(data: Path, lease_id: str) -> None:
    events: list[Event] = []
    async with open_with_keyring(data, notify=events.append) as (store, keyring):
        found = await store.load_issue_context("aws", "app", "root", REQUEST.id)
        assert found.root is not None
        assert keyring.open(found.root.sealed, root_context("aws"), "1") == b"root of aws"
        assert found.earlier is not None
        assert not found.earlier.tampered
        assert found.earlier.id == lease_id
        row = await store.get_rotation(STATIC)
        assert row is not None
        assert keyring.open(row.sealed, key_context(STATIC), row.current) == b"secret"
        assert (await store.status()).tampered_rows == ()
    assert events == []


# --- leases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", LEASE_EDITS)
async def test_an_edited_lease_is_shown_and_revoked_and_nothing_else(
    data: Path, lease_id: str, column: str
) -> None:
    assert edit(data, f"UPDATE leases SET {column} = {LEASE_EDITS[column]}") == 1
    events: list[Event] = []
    async with open_with_keyring(data, notify=events.append) as (store, _):
        lease = await store.get(lease_id)
        assert lease is not None
        assert lease.tampered
        (listed,) = await store.page(EVERYTHING, None, "", 10)
        assert listed.tampered
        assert events == [TamperedRow("leases", lease_id)]
        assert (await store.status()).tampered_rows == (f"leases {lease_id}",)
        revoked = await store.revoke(lease_id)
        assert revoked is not None
        assert revoked.state is State.REVOKING
        (claim,) = await store.claim([lease_id], TERMS)
        assert await lease_steps.reschedule(store, claim, "why", timedelta(0), 1, 0)
        (claim,) = await store.claim([lease_id], TERMS)
        assert await lease_steps.finish(store, claim)
        after = await store.get(lease_id)
        assert after is not None
        assert (after.state, after.tampered) == (State.GONE, True)


async def test_no_step_makes_an_edited_lease_authentic(data: Path, lease_id: str) -> None:
    edit(data, "UPDATE leases SET max_expires_us = max_expires_us + 1000000")
    async with open_with_keyring(data) as (store, _):
        lease = await store.get(lease_id)
        assert lease is not None
        longer = replace(lease, max_expires_us=lease.max_expires_us + 1, generation=lease.generation + 1)
        assert await store.write(lease, longer)
        assert (await authentic(store, lease_id)) is False
        assert await lease_steps.mark_undelivered(store, longer)
        assert (await authentic(store, lease_id)) is False


async def authentic(store: SqliteStore, lease_id: str) -> bool:
    """Return whether a lease is as it was written."""
    lease = await store.get(lease_id)
    assert lease is not None
    return not lease.tampered


async def test_the_steps_of_a_lease_keep_it_authentic(data: Path) -> None:
    async with open_with_keyring(data) as (store, _):
        lease = await store.begin(builders.intent(1), SPAN)
        assert await authentic(store, lease.id)
        active = await lease_steps.activate(store, lease, "AKIA3")
        assert active is not None
        assert await authentic(store, lease.id)
        renewed = await lease_steps.renew(store, active, active.expires_us + 1)
        assert renewed is not None
        await store.lower_clock()
        await store.revoke(lease.id)
        assert await authentic(store, lease.id)
        orphan = Orphan(builders.intent(2, role_name="lost").id, "aws", "lost", lease.footprint)
        assert await store.adopt(orphan)
        assert await authentic(store, orphan.id)


# --- mounts, roots and roles ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column"), [(one, name) for one in CONFIG_EDITS for name in CONFIG_EDITS[one]]
)
async def test_an_edited_row_grants_nothing_and_others_go_on(data: Path, table: str, column: str) -> None:
    assert edit(data, f"UPDATE {table} SET {column} = {CONFIG_EDITS[table][column]} WHERE {KEYS[table]}") == 1
    events: list[Event] = []
    async with open_with_keyring(data, notify=events.append) as (store, _):
        with pytest.raises(RowTampered) as raised:
            await context_of(store)
        assert raised.value.table == table
        assert [event for event in events if isinstance(event, TamperedRow)] == events != []
        assert (await store.status()).tampered_rows == (f"{table} {raised.value.key}",)
        assert await context_of(store, mount="lab")
        if table == "roles":
            assert await context_of(store, "other")
            with pytest.raises(RowTampered):
                await store.get_role("aws", "app")
        if table == "mounts":
            with pytest.raises(RowTampered):
                await store.get_mount("aws")


async def test_a_mount_that_is_being_disabled_can_not_be_enabled_by_an_edit(data: Path) -> None:
    async with open_with_keyring(data) as (store, _):
        await store.disable("aws")
        found = await store.get_mount("aws")
        assert found is not None
        assert found.state is MountState.DISABLING
    edit(data, "UPDATE mounts SET state = 'enabled'")
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)
        await store.disable("aws")  # as it was before the edit
        found = await store.get_mount("aws")
        assert found is not None
        assert found.state is MountState.DISABLING


async def test_disabling_an_edited_mount_does_not_make_it_authentic(data: Path) -> None:
    edit(data, "UPDATE mounts SET max_lease_ttl_us = max_lease_ttl_us * 2")
    async with open_with_keyring(data) as (store, _):
        assert await store.disable("aws")
        with pytest.raises(RowTampered):
            await store.get_mount("aws")


_ROLE_MAC = "UPDATE row_macs SET mac = {} WHERE place = 'roles/aws/app'"
MOVES = {
    "the root of another mount": (
        "UPDATE roots SET sealed = (SELECT sealed FROM roots WHERE mount = 'lab') WHERE mount = 'aws'"
    ),
    "the role of another mount": (
        "UPDATE roles SET body = (SELECT body FROM roles WHERE mount = 'lab'), etag = '' WHERE mount = 'aws'"
    ),
    "the mac of another row": _ROLE_MAC.format("(SELECT mac FROM row_macs WHERE place = 'roles/aws/other')"),
    "a mac that is a text": _ROLE_MAC.format("'x'"),
    "no macs": "DELETE FROM row_macs WHERE mount = 'aws'",
    "no mac of the role": "DELETE FROM row_macs WHERE place = 'roles/aws/app'",
}
"""Statements that move rows or their MACs, or lose them; the rows of the mount lab stay as they are."""


@pytest.mark.parametrize("move", MOVES)
async def test_a_moved_row_or_mac_grants_nothing(data: Path, move: str) -> None:
    assert edit(data, MOVES[move])
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)
        assert await context_of(store, mount="lab")


async def test_an_inserted_role_grants_nothing(data: Path) -> None:
    edit(data, "INSERT INTO roles SELECT mount, 'admin', etag, body FROM roles WHERE name = 'other'")
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store, "admin")
        assert [role.name for role in await store.list_roles("aws", "", 10)] == ["app", "other"]
        assert await store.delete_role("aws", "admin")
        assert await store.put_role(builders.role("admin"), None)
        assert await context_of(store, "admin")


async def test_an_edited_account_of_a_root_is_not_written_on(data: Path) -> None:
    edit(data, "UPDATE roots SET account = '' WHERE mount = 'aws'")
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await store.bind_account("aws", 1, "aws:999999999999")
        found = await store.get_root("aws")  # revocations need it
        assert isinstance(found, StoredRoot)
        assert await store.put_root(replace(builders.stored_root(version=2), sealed=b"new"), 1)
        assert await context_of(store)


# --- static roles ---------------------------------------------------------------------------------------

STATIC_EDITS = {
    "current": "body = json_set(body, '$.current', 'AKIAOTHER')",
    "user_name": "body = json_set(body, '$.user_name', 'admin')",
    "user_id": "body = json_set(body, '$.user_id', 'AIDAOTHER')",
    "account": "body = json_set(body, '$.account', 'aws:999999999999')",
    "schedule": "body = json_set(body, '$.period_us', 3600000000)",
    "phase": "phase = 'RETIRING'",
    "sealed": "sealed = x'02'",
    "fresh_sealed": "fresh_sealed = sealed",
}


@pytest.mark.parametrize("column", STATIC_EDITS)
async def test_an_edited_static_role_gives_no_key(data: Path, column: str) -> None:
    assert edit(data, f"UPDATE rotations SET {STATIC_EDITS[column]}") == 1
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await store.get_rotation(STATIC)
        assert await store.list_static("aws", "", 10) == []
        with pytest.raises(RowTampered):
            await store.claim_rotation(STATIC)
        assert await store.claim_rotations(10, frozenset()) == []


async def test_a_claim_of_a_static_role_keeps_it_authentic(data: Path) -> None:
    async with open_with_keyring(data) as (store, _):
        claimed = await store.claim_rotation(STATIC)
        assert claimed is not None
        await store.void_stale_claims()
    async with open_with_keyring(data) as (store, _):
        assert await store.get_rotation(STATIC) is not None


# --- the keyring ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "also",
    [
        "SELECT 1",
        "DELETE FROM row_macs",
        "UPDATE leases SET mac = x''",
        "DELETE FROM roots",
        "DELETE FROM rotations",
    ],
)
async def test_a_database_that_lost_its_data_keys_is_refused(data: Path, also: str) -> None:
    """Otherwise the next start would take all rows as they are for authentic."""
    edit(data, "DELETE FROM sealing_keys", also)
    queries = [f"SELECT * FROM {table}" for table in ("sealing_keys", "row_macs", "roots", "leases")]
    before = [rows_of(data, query) for query in queries]
    with pytest.raises(ExceptionGroup) as raised:
        async with open_with_keyring(data):
            pass
    assert raised.group_contains(SealingKeyMismatch, match="lost its data keys")
    assert [rows_of(data, query) for query in queries] == before


async def test_an_earlier_version_of_a_sealed_root_does_not_open(data: Path) -> None:
    async with open_with_keyring(data) as (store, keyring):
        old = await store.get_root("aws")
        assert old is not None
        with pytest.raises(SealBroken):
            keyring.open(old.sealed, root_context("aws"), "2")


def test_every_column_of_a_lease_is_covered_or_can_grant_nothing() -> None:
    """A new column must be put into one of the two."""
    from lessor_server.adapters.sql.row_macs import LEASE_COVERED
    from lessor_server.adapters.sql.statements import LEASE_COLUMNS

    free = {
        "state", "generation", "due_us", "access_key_id", "ttl_us", "created_us", "issue_us",
        "last_renewal_us", "expires_us", "attempts", "looks", "last_error", "last_create_us", "untaken",
        "reason", "mac",
    }  # fmt: skip
    assert set(LEASE_COLUMNS.split(", ")) == free | set(LEASE_COVERED)
    assert not free & set(LEASE_COVERED)
