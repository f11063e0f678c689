"""Checks the rows of login tokens in each kind of store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.login_tokens import HOUR, HOUR_US, JWT, digest, login_token
from tests.support.postgres_store import open_on_postgres
from tests.support.sealed_store import edit, open_with_keyring, put_back, rows_of
from tests.support.stores import Bench, HandClock

from lessor_server.adapters.sql.transaction import REPEAT
from lessor_server.adapters.sqlite.store import FILE
from lessor_server.domain.access.login_token import LoginToken
from lessor_server.domain.errors.access import TooManyLoginTokens
from lessor_server.domain.errors.base import RowUnreadable
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.events import Event, TamperedRow
from lessor_server.engine.ports import Store

EDITS = {
    "accessor": "'another'",
    "identity": "'root'",
    "parent": "''",
    "depth": "0",
    "credential": '\'{"token": "00"}\'',
    "ttl_us": "ttl_us + 1000000",
    "created_us": "created_us + 1",
    "renewed_us": "1",
    "expires_us": "expires_us + 1",
    "max_expires_us": "max_expires_us + 1",
    "renewable": "1 - renewable",
    "mac": "x''",
}


async def add(store: Store, number: int, **changes: object) -> LoginToken:
    """Store a token."""
    token = login_token(number, store.now(), **changes)
    assert await store.add_login_token(token, 1000)
    return token


async def add_family(store: Store) -> list[LoginToken]:
    """Store a token, its child, its grandchild, and one that is not related."""
    first = await add(store, 0)
    child = await add(store, 1, parent=first.digest, depth=1)
    grandchild = await add(store, 2, parent=child.digest, depth=2)
    return [first, child, grandchild, await add(store, 3)]


async def live(store: Store) -> list[int]:
    """Return the numbers of the first ten tokens that are found."""
    return [number for number in range(10) if await store.read_login_chain(digest(number))]


async def test_a_token_is_read_as_it_was_stored(b: Bench) -> None:
    token = await add(b.store, 0, credential=JWT, renewable=False, renewed_us=7)
    assert await b.store.read_login_chain(token.digest) == (token,)
    assert await b.store.read_login_chain(digest(1)) == ()


async def test_a_token_is_read_with_its_ancestors(b: Bench) -> None:
    first, child, grandchild, other = await add_family(b.store)
    assert await b.store.read_login_chain(grandchild.digest) == (grandchild, child, first)
    assert await b.store.read_login_chain(other.digest) == (other,)


async def test_a_token_that_ends_takes_its_descendants_with_it(b: Bench) -> None:
    first, child, grandchild, _ = await add_family(b.store)
    assert sorted(await b.store.end_login_token(child.digest)) == sorted((child.digest, grandchild.digest))
    assert await live(b.store) == [0, 3]
    assert await b.store.end_login_token(child.digest) == []
    assert await b.store.end_login_token(first.digest) == [first.digest]


async def test_no_child_is_stored_of_a_parent_that_has_ended(b: Bench) -> None:
    first = await add(b.store, 0)
    child = login_token(1, b.store.now(), parent=first.digest, depth=1)
    await b.store.end_login_token(first.digest)
    assert not await b.store.add_login_token(child, 1000)
    expired = await add(b.store, 2)
    b.clock.advance(3600)
    assert not await b.store.add_login_token(replace(child, parent=expired.digest), 1000)
    assert await live(b.store) == [2]


async def test_a_renewal_changes_the_expiry_and_nothing_else(b: Bench) -> None:
    token = await add(b.store, 0)
    b.clock.advance(60)
    now = b.store.now()
    renewed = replace(token, expires_us=now + 2 * HOUR_US, renewed_us=now)
    assert await b.store.renew_login_token(renewed)
    assert await b.store.read_login_chain(token.digest) == (renewed,)


async def test_a_token_that_has_ended_is_not_renewed(b: Bench) -> None:
    token = await add(b.store, 0)
    b.clock.advance(3600)
    later = replace(token, expires_us=b.store.now() + HOUR_US)
    assert not await b.store.renew_login_token(later)
    assert not await b.store.renew_login_token(login_token(1, b.store.now()))
    assert await b.store.read_login_chain(token.digest) == (token,)


async def test_an_identity_has_a_maximum_of_live_tokens(b: Bench) -> None:
    for number in range(3):
        assert await b.store.add_login_token(login_token(number, b.store.now()), 3)
    with pytest.raises(TooManyLoginTokens, match="ci has as many live login tokens"):
        await b.store.add_login_token(login_token(4, b.store.now()), 3)
    assert await b.store.add_login_token(login_token(5, b.store.now(), identity="other"), 3)
    await b.store.end_login_token(digest(0))
    assert await b.store.add_login_token(login_token(4, b.store.now()), 3)
    b.clock.advance(3600)  # all of them have expired, and need not be purged before
    assert await b.store.add_login_token(login_token(6, b.store.now()), 3)


async def test_concurrent_logins_never_pass_the_maximum(b: Bench) -> None:
    now = b.store.now()
    outcomes = await asyncio.gather(
        *(b.store.add_login_token(login_token(number, now), 3) for number in range(8)), return_exceptions=True
    )
    assert sum(outcome is True for outcome in outcomes) == 3
    assert sum(isinstance(outcome, TooManyLoginTokens) for outcome in outcomes) == 5
    assert len(await live(b.store)) == 3


async def test_ended_tokens_and_orphans_are_purged_in_batches(b: Bench) -> None:
    for number in range(4):
        await add(b.store, number, expires_us=b.store.now() + number * 1_000_000)
    await add(b.store, 4, parent=digest(3), depth=1)
    await add(b.store, 5)
    b.clock.advance(2)
    assert await b.store.purge_login_tokens(2) == 2
    assert await b.store.purge_login_tokens(2) == 1
    assert await b.store.purge_login_tokens(2) == 0
    assert await live(b.store) == [3, 4, 5]
    b.clock.advance(1)
    while await b.store.purge_login_tokens(1):
        pass
    assert await live(b.store) == [5]


# --- rows that somebody else wrote ----------------------------------------------------------------------


@pytest.mark.parametrize("column", EDITS)
async def test_an_edited_token_grants_nothing(tmp_path: Path, column: str) -> None:
    async with open_with_keyring(tmp_path) as (store, _):
        await add_family(store)
    where = f"digest = '{digest(1)}'"
    assert edit(tmp_path, f"UPDATE login_tokens SET {column} = {EDITS[column]} WHERE {where}") == 1
    events: list[Event] = []
    async with open_with_keyring(tmp_path, notify=events.append) as (store, _):
        for _again in range(2):
            with pytest.raises(RowTampered):
                await store.read_login_chain(digest(2))
        assert await store.read_login_chain(digest(3))
        assert [one.split()[0] for one in (await store.status()).tampered_rows] == ["login_tokens"]
        assert await store.end_login_token(digest(0))  # a revocation needs no MAC
    assert [type(event) for event in events] == [TamperedRow]
    assert digest(1) not in str(events)


async def test_a_token_with_the_mac_of_another_grants_nothing(tmp_path: Path) -> None:
    async with open_with_keyring(tmp_path) as (store, _):
        await add(store, 0)
        await add(store, 1, identity="root")
    mac = f"(SELECT mac FROM login_tokens WHERE digest = '{digest(1)}')"
    edit(tmp_path, f"UPDATE login_tokens SET identity = 'root', mac = {mac} WHERE digest = '{digest(0)}'")
    async with open_with_keyring(tmp_path) as (store, _):
        with pytest.raises(RowTampered):
            await store.read_login_chain(digest(0))


async def test_an_earlier_row_that_is_put_back_lives_no_longer_than_its_maximum(tmp_path: Path) -> None:
    """Who can write the database can undo a revocation, but not lengthen the life of a token."""
    async with open_with_keyring(tmp_path) as (store, _):
        token = await add(store, 0)
    before = rows_of(tmp_path, "SELECT * FROM login_tokens")
    async with open_with_keyring(tmp_path) as (store, _):
        await store.renew_login_token(replace(token, expires_us=token.max_expires_us))
        await store.end_login_token(token.digest)
    put_back(tmp_path, "login_tokens", before)
    async with open_with_keyring(tmp_path) as (store, _):
        assert await store.read_login_chain(token.digest) == (token,)


@pytest.mark.parametrize(
    ("column", "value"),
    [("digest", "'x'"), ("credential", "'{}'"), ("credential", "'[1'"), ("depth", "9"), ("renewable", "'x'")],
)
async def test_an_unreadable_token_is_an_error_that_names_the_column(
    tmp_path: Path, column: str, value: str
) -> None:
    async with open_with_keyring(tmp_path) as (store, _):
        await add(store, 0)
    edit(tmp_path, f"UPDATE login_tokens SET {column} = {value}")
    async with open_with_keyring(tmp_path) as (store, _):
        wanted = "x" if column == "digest" else digest(0)
        with pytest.raises(RowUnreadable, match="row accessor0 of login_tokens cannot be read"):
            await store.read_login_chain(wanted)


# --- data keys, copies and restores ----------------------------------------------------------------------


async def test_tokens_count_under_a_new_data_key(tmp_path: Path) -> None:
    async with open_with_keyring(tmp_path) as (store, keyring):
        first, _, grandchild, _ = await add_family(store)
        await store._jobs.write(
            lambda tx: tx.change(
                "UPDATE login_tokens SET depth = 3 WHERE digest = :digest", {"digest": digest(3)}
            ),
            REPEAT,
        )
        old = keyring.active_id
        key = await keyring.make()
        await store.add_data_key(key)
        keyring.use(key.id)
        last: str | None = ""
        while last is not None:
            last = await store.reseal_login_tokens(last, 3)
        keyring.forget_all_but(key.id)
        assert keyring.active_id != old
        assert await store.read_login_chain(grandchild.digest)
        assert await store.renew_login_token(replace(first, expires_us=first.max_expires_us))
        with pytest.raises(RowTampered):  # it was not authentic, and a new key does not make it so
            await store.read_login_chain(digest(3))


async def test_a_backup_has_no_tokens(tmp_path: Path) -> None:
    """One that is revoked after the backup must not come back with it."""
    async with open_with_keyring(tmp_path) as (store, _):
        await add(store, 0)
        await store.backup("copy.db")
    assert len(rows_of(tmp_path, "SELECT * FROM login_tokens")) == 1
    (tmp_path / "copy.db").replace(tmp_path / FILE)
    assert rows_of(tmp_path, "SELECT * FROM login_tokens") == []


async def test_new_keys_for_lost_ones_end_all_tokens(tmp_path: Path) -> None:
    """Nothing shows any more which rows Lessor wrote."""
    async with open_with_keyring(tmp_path) as (store, keyring):
        token = await add(store, 0)
        assert await store.read_login_chain(token.digest)
        await store.begin_keyring(await keyring.make(), keyring)
        assert await store.read_login_chain(token.digest) == ()


async def test_a_restored_postgresql_database_has_no_tokens(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_on_postgres(tmp_path, clock) as store:
        token = await add(store, 0)
    async with open_on_postgres(tmp_path, clock) as store:
        assert await store.read_login_chain(token.digest) == (token,)
        await store._jobs.write(
            lambda tx: tx.change("UPDATE meta SET value = 'another' WHERE key = 'incarnation'", {}), REPEAT
        )
    async with open_on_postgres(tmp_path, clock) as store:
        assert await store.read_login_chain(token.digest) == ()


async def test_the_life_is_kept_to_the_microsecond(b: Bench) -> None:
    token = await add(b.store, 0, ttl=HOUR, expires_us=b.store.now() + 1)
    (found,) = await b.store.read_login_chain(token.digest)
    assert found.expires_us == token.expires_us
