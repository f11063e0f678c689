"""Puts rows back from an earlier copy, and lets rows change places: nothing is granted by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.filled_store import STATIC, WEEKLY, context_of, data, filled, lease_id, static
from tests.support.sealed_store import edit, exchange, open_with_keyring, put_back, rows_of
from tests.support.stores import TERMS

from lessor_server.adapters.sqlite.store import FILE, SqliteStore
from lessor_server.domain.errors.sealing import RowTampered, SealingKeyMismatch
from lessor_server.domain.events import Event, TamperedRow
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.role import Role
from lessor_server.domain.rotation import key_context

__all__ = ["data", "filled", "lease_id"]

# --- rows that are put back ---------------------------------------------------------------------------

Change = Callable[[SqliteStore], Awaitable[object]]


async def _new_root(store: SqliteStore) -> None:
    await store.put_root(replace(builders.stored_root(version=2), sealed=b"new"), 1)


PUT_BACK: dict[str, tuple[str, Change]] = {
    "roles": ("name = 'app' AND mount = 'aws'", lambda store: store.put_role(_narrow(), "0")),
    "roles, deleted": (
        "name = 'app' AND mount = 'aws'",
        lambda store: store.delete_role("aws", "app"),
    ),
    "roots": ("mount = 'aws'", _new_root),
    "mounts": ("name = 'aws'", lambda store: store.put_mount(builders.mount(), builders.mount(max_users=1))),
}


def _narrow() -> Role:
    return builders.role(policy_document="", policy_arns=(builders.READ_ONLY,), etag="1")


@pytest.mark.parametrize("with_mac", [False, True], ids=["alone", "with its mac"])
@pytest.mark.parametrize("name", PUT_BACK)
async def test_a_row_that_is_put_back_grants_nothing(data: Path, name: str, with_mac: bool) -> None:
    table, (where, change) = name.partition(",")[0], PUT_BACK[name]
    before = rows_of(data, f"SELECT * FROM {table} WHERE {where}")
    macs = rows_of(data, f"SELECT * FROM row_macs WHERE place IN ('{table}/aws', '{table}/aws/app')")
    async with open_with_keyring(data) as (store, _):
        await change(store)
    put_back(data, table, before)
    if with_mac:
        put_back(data, "row_macs", macs)
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)
        assert await context_of(store, mount="lab")


async def test_a_write_does_not_make_rows_that_were_put_back_authentic(data: Path) -> None:
    before = rows_of(data, "SELECT * FROM roles WHERE name = 'app' AND mount = 'aws'")
    macs = rows_of(data, "SELECT * FROM row_macs WHERE place = 'roles/aws/app'")
    async with open_with_keyring(data) as (store, _):
        assert await store.put_role(_narrow(), "0")
    put_back(data, "roles", before)
    put_back(data, "row_macs", macs)
    async with open_with_keyring(data) as (store, _):
        assert await store.put_role(builders.role("new"), None)
        assert await store.delete_role("aws", "other")
        for role in ("app", "new"):
            with pytest.raises(RowTampered):
                await context_of(store, role)


async def test_a_static_role_that_is_put_back_gives_no_key(data: Path) -> None:
    before = rows_of(data, "SELECT * FROM rotations")
    async with open_with_keyring(data) as (store, keyring):
        claimed = await store.claim_rotation(STATIC)
        assert claimed is not None
        sealed = keyring.seal(b"new", key_context(STATIC), "AKIA9")
        assert await store.move_rotation(replace(claimed, current="AKIA9", sealed=sealed), done=True)
    put_back(data, "rotations", before)
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await store.get_rotation(STATIC)


# --- rows that change places --------------------------------------------------------------------------

_STATIC_ROLES = ("subject LIKE '%nightly'", "subject LIKE '%weekly'")
SWAPS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "mounts": (("mounts", "default_lease_ttl_us, max_users", "name = 'aws'", "name = 'lab'"),),
    "roots": (("roots", "sealed, account, version, etag", "mount = 'aws'", "mount = 'lab'"),),
    "roles of two mounts": (("roles", "etag, body", "mount = 'aws' AND name = 'app'", "mount = 'lab'"),),
    "roles of a mount": (
        ("roles", "etag, body", "mount = 'aws' AND name = 'app'", "mount = 'aws' AND name = 'other'"),
    ),
    "roles with their macs": (
        ("roles", "etag, body", "mount = 'aws' AND name = 'app'", "mount = 'lab'"),
        ("row_macs", "mac", "place = 'roles/aws/app'", "place = 'roles/lab/app'"),
    ),
    "static roles": (("rotations", "sealed, fresh_sealed, body", *_STATIC_ROLES),),
    "secrets of static roles": (("rotations", "sealed", *_STATIC_ROLES),),
    "secrets of static roles with their macs": (
        ("rotations", "sealed", *_STATIC_ROLES),
        ("row_macs", "mac", "place LIKE '%nightly'", "place LIKE '%weekly'"),
    ),
}
"""Pairs of rows that change places: table, columns, and the two rows; each pair differs."""


@pytest.mark.parametrize("name", SWAPS)
async def test_two_rows_that_change_places_grant_nothing(data: Path, lease_id: str, name: str) -> None:
    async with open_with_keyring(data) as (store, keyring):
        await store.put_mount(await store.get_mount("lab"), builders.mount("lab", max_users=9))
        await store.put_role(builders.role(mount_name="lab", policy_arns=(builders.READ_ONLY,)), "0")
        await store.put_role(builders.role("other", policy_arns=(builders.READ_ONLY,)), "0")
        weekly = replace(static(user_name="weekly", user_id="AIDB", current="AKIA5"), subject=WEEKLY)
        sealed = keyring.seal(b"other secret", key_context(WEEKLY), "AKIA5")
        added = await store.add_rotation(replace(weekly, sealed=sealed))
        assert added is not None
        await store.move_rotation(added, done=True)
    for swap in SWAPS[name]:
        exchange(data, *swap)
    async with open_with_keyring(data) as (store, _):
        if name.startswith(("static", "secrets")):
            for subject in (STATIC, WEEKLY):
                with pytest.raises(RowTampered):
                    await store.get_rotation(subject)
        else:
            with pytest.raises(RowTampered):
                await context_of(store)
        assert await store.revoke(lease_id) is not None


# --- the installation as a whole ------------------------------------------------------------------------

_OF_LAB = "(SELECT mac FROM row_macs WHERE place = 'row_macs/lab')"
_OF_ALL = "UPDATE row_macs SET mac = {} WHERE mount = '' AND place = '{}'"
LOST = {
    "no mac of all mounts": "DELETE FROM row_macs WHERE mount = '' AND place = ''",
    "no mac of a mount": "DELETE FROM row_macs WHERE mount = '' AND place = 'row_macs/aws'",
    "no mac above a mount's": "DELETE FROM row_macs WHERE mount = ''",
    "no macs": "DELETE FROM row_macs",
    "the mac of another mount": _OF_ALL.format(_OF_LAB, "row_macs/aws"),
    "another mac of all": _OF_ALL.format(_OF_LAB, ""),
    "another mount": "INSERT INTO row_macs VALUES ('', 'row_macs/new', x'00')",
}


@pytest.mark.parametrize("name", LOST)
async def test_without_the_mac_of_all_mounts_nothing_is_granted(data: Path, lease_id: str, name: str) -> None:
    assert edit(data, LOST[name])
    async with open_with_keyring(data) as (store, _):
        for mount in ("aws", "lab"):
            with pytest.raises(RowTampered):
                await context_of(store, mount=mount)
        assert "row_macs of all mounts" in (await store.status()).tampered_rows
        assert await store.put_role(builders.role("new"), None)
        with pytest.raises(RowTampered):
            await context_of(store, "new")
        assert await store.revoke(lease_id) is not None
    async with open_with_keyring(data, accept=True) as (store, _):
        for mount in ("aws", "lab"):
            assert await context_of(store, mount=mount)
    async with open_with_keyring(data) as (store, _):
        assert await context_of(store, "new")
        assert (await store.status()).tampered_rows == ()


async def test_rows_are_not_taken_as_they_are_while_the_mac_of_all_is_right(data: Path) -> None:
    edit(data, "UPDATE roles SET etag = 'x' WHERE mount = 'aws'")
    async with open_with_keyring(data, accept=True) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)


_OF_AWS = {
    "mounts": "name = 'aws'",
    "roots": "mount = 'aws'",
    "roles": "mount = 'aws'",
    "rotations": "subject LIKE 'aws/%'",
    "row_macs": "mount = 'aws' OR place = 'row_macs/aws'",
}


@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
async def test_a_mount_that_is_put_back_with_all_of_its_rows_and_macs_grants_nothing(
    data: Path, removed: bool
) -> None:
    before = {table: rows_of(data, f"SELECT * FROM {table} WHERE {of}") for table, of in _OF_AWS.items()}
    async with open_with_keyring(data) as (store, _):
        if removed:
            await store.disable("aws")
            for lease in await store.page(EVERYTHING, None, "", 10):
                await store.revoke(lease.id)
                (claim,) = await store.claim([lease.id], TERMS)
                assert await lease_steps.finish(store, claim)
            await store.forget_static("aws")
            assert await store.remove_disabled() == ["aws"]
            assert await context_of(store, mount="lab")
        else:
            assert await store.put_role(_narrow(), "0")
    for table, rows in before.items():
        edit(data, f"DELETE FROM {table} WHERE {_OF_AWS[table]}")
        put_back(data, table, rows)
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)
        assert "row_macs of all mounts" in (await store.status()).tampered_rows


# --- holds ----------------------------------------------------------------------------------------------

HOLDS = {
    "forged": "INSERT OR REPLACE INTO meta VALUES ('held', 'forged')",
    "put back": "INSERT OR REPLACE INTO meta VALUES ('held', 'earlier')",
    "of another type": "INSERT OR REPLACE INTO meta VALUES ('held', 7)",
    "put back with its mac": "INSERT OR REPLACE INTO meta VALUES ('held', 'earlier')",
    "put back with the mac of all": "INSERT OR REPLACE INTO meta VALUES ('held', 'earlier')",
}


@pytest.mark.parametrize("hold", HOLDS)
async def test_a_hold_that_lessor_did_not_write_holds_nothing(data: Path, hold: str, lease_id: str) -> None:
    async with open_with_keyring(data) as (store, _):
        await store.set_expiry_hold("earlier")
    earlier = rows_of(data, "SELECT * FROM row_macs WHERE mount = '' AND place IN ('', 'meta/held')")
    async with open_with_keyring(data) as (store, _):
        await store.set_expiry_hold("")
        await store.put_role(_narrow(), "0")
    edit(data, HOLDS[hold], "UPDATE leases SET expires_us = 1, due_us = 1")
    if "mac" in hold:
        put_back(data, "row_macs", earlier if "all" in hold else earlier[1:])
    events: list[Event] = []
    async with open_with_keyring(data, notify=events.append) as (store, _):
        status = await store.status()
        assert (status.expiry_hold, status.tampered_rows[0]) == ("", "meta held")
        assert [claim.id for claim in await store.claim_due(TERMS, 10)] == [lease_id]
    assert TamperedRow("meta", "held") in events


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM meta WHERE key = 'held'",
        "UPDATE meta SET value = '' WHERE key = 'held'",
        "UPDATE meta SET value = 'another' WHERE key = 'held'",
    ],
)
async def test_a_hold_that_somebody_else_removed_or_edited_stays(data: Path, change: str) -> None:
    async with open_with_keyring(data) as (store, _):
        await store.set_expiry_hold("asked")
    assert edit(data, change) == 1
    for _ in range(2):
        async with open_with_keyring(data) as (store, _):
            assert (await store.status()).expiry_hold == "STORED_HOLD_UNREADABLE"
    async with open_with_keyring(data) as (store, _):
        await store.set_expiry_hold("")
    async with open_with_keyring(data) as (store, _):
        status = await store.status()
        assert (status.expiry_hold, status.tampered_rows) == ("", ())


async def test_a_hold_is_kept_over_starts_and_in_backups(data: Path, tmp_path: Path) -> None:
    async with open_with_keyring(data) as (store, _):
        await store.set_expiry_hold("asked")
        await store.backup("copy.db")
    async with open_with_keyring(data) as (store, _):
        assert (await store.status()).expiry_hold == "asked"
    restored = tmp_path / "restored"
    restored.mkdir()
    (tmp_path / "copy.db").rename(restored / FILE)
    async with open_with_keyring(restored) as (store, _):
        status = await store.status()
        assert (status.expiry_hold, status.tampered_rows) == ("STORE_ROLLED_BACK", ())
        assert await context_of(store)


# --- data keys ------------------------------------------------------------------------------------------

_SWAP = "UPDATE sealing_keys SET ({0}) = (SELECT {0} FROM sealing_keys AS o WHERE o.id <> sealing_keys.id)"
_TWICE = "INSERT INTO sealing_keys SELECT id || 0, wrapped, wrapped_by, active, complete FROM sealing_keys"
KEYRING_EDITS = {
    "wrapped keys swapped": _SWAP.format("wrapped"),
    "proofs swapped": _SWAP.format("complete"),
    "wrapped keys and proofs swapped": _SWAP.format("wrapped, complete"),
    "wrapped by another": "UPDATE sealing_keys SET wrapped_by = 'key:0000000000000000'",
    "a changed key": "UPDATE sealing_keys SET wrapped = x'00' WHERE active = 0",
    "no key in use": "UPDATE sealing_keys SET active = 0",
    "the key in use deleted": "DELETE FROM sealing_keys WHERE active = 1",
    "another id": "UPDATE sealing_keys SET id = '0000000000000000' WHERE active = 0",
    "a key twice": _TWICE,
}


async def half_rotated(data: Path) -> None:
    """Stop a rotation of the data key when only the first mount is sealed under the new one."""
    async with open_with_keyring(data) as (store, keyring):
        await store.add_data_key(new := await keyring.make())
        keyring.use(new.id)
        assert await store.reseal_mount("") is not None


@pytest.mark.parametrize("name", KEYRING_EDITS)
async def test_changed_data_keys_stop_the_start(data: Path, name: str) -> None:
    await half_rotated(data)
    assert edit(data, KEYRING_EDITS[name])
    queries = [f"SELECT * FROM {table}" for table in ("sealing_keys", "row_macs", "roots", "leases")]
    before = [rows_of(data, query) for query in queries]
    with pytest.raises(ExceptionGroup) as raised:
        async with open_with_keyring(data):
            pass
    assert raised.group_contains(SealingKeyMismatch)
    assert [rows_of(data, query) for query in queries] == before


async def test_without_an_earlier_data_key_the_rows_under_it_grant_nothing(data: Path, lease_id: str) -> None:
    await half_rotated(data)
    assert edit(data, "DELETE FROM sealing_keys WHERE active = 0")
    async with open_with_keyring(data) as (store, _):
        assert await context_of(store)
        with pytest.raises(RowTampered):
            await context_of(store, mount="lab")
        assert await store.revoke(lease_id) is not None


async def test_the_key_in_use_exchanged_with_an_earlier_one_grants_nothing_more(data: Path) -> None:
    await half_rotated(data)
    assert edit(data, "UPDATE sealing_keys SET active = 1 - active") == 2
    edit(data, "UPDATE roles SET etag = 'x' WHERE mount = 'lab'")
    async with open_with_keyring(data) as (store, _):
        assert await context_of(store)
        with pytest.raises(RowTampered):
            await context_of(store, mount="lab")


async def test_a_mount_that_is_put_back_with_its_deleted_data_key_grants_nothing(data: Path) -> None:
    before = {table: rows_of(data, f"SELECT * FROM {table} WHERE {of}") for table, of in _OF_AWS.items()}
    keys = [(*row[:3], 0, row[4]) for row in rows_of(data, "SELECT * FROM sealing_keys")]
    async with open_with_keyring(data) as (store, keyring):
        await store.add_data_key(new := await keyring.make())
        keyring.use(new.id)
        mount = ""
        while step := await store.reseal_mount(mount):
            mount = step[0]
        await store.reseal_leases("", 100)
        await store.drop_data_keys(new.id)
    put_back(data, "sealing_keys", keys)
    for table, rows in before.items():
        put_back(data, table, rows)
    async with open_with_keyring(data) as (store, _):
        with pytest.raises(RowTampered):
            await context_of(store)
