"""Checks the copy of a SQLite store to PostgreSQL: all rows, authentic, resumable, with expiries held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.support.filled_store import STATIC, data, filled, lease_id
from tests.support.hand_clock import HandClock
from tests.support.postgres import shared_postgres
from tests.support.postgres_store import HandDatabaseClock
from tests.support.sealed_store import WRAPPING, edit, open_with_keyring
from tests.support.stores import SPAN, intent

from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.imports import CopyRefused, open_destination
from lessor_server.adapters.postgres.store import PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sqlite.lock import DirectoryLocked
from lessor_server.adapters.sqlite.source import open_source
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.store_copy import ShowProgress, compare_stores, copy_store

__all__ = ["data", "filled", "lease_id"]


class CutOff(Exception):
    """The copy ends here."""


@pytest.fixture(name="target")
def empty(request: pytest.FixtureRequest) -> DatabaseTarget:
    """Return a new database."""
    return DatabaseTarget(shared_postgres().create_database(f"copy{abs(hash(request.node.nodeid))}"))


async def copy(data: Path, target: DatabaseTarget, show: ShowProgress = lambda *_: None) -> bool:
    """Copy a data directory, with the keyring of the tests."""
    async with open_source(data) as source, open_destination(target) as destination:
        keyring = Keyring(WRAPPING)
        await keyring.load(source.stored.data_keys)
        return await copy_store(source, destination, keyring, show)


@asynccontextmanager
async def opened(target: DatabaseTarget) -> AsyncIterator[PostgresStore]:
    """Open a copy as a start does."""
    async with open_postgres(target, HandDatabaseClock(HandClock())) as store:
        keyring = Keyring(WRAPPING)
        await keyring.load(await store.list_data_keys())
        await store.unlock(keyring)
        yield store


async def test_a_copy_has_all_rows_and_holds_expiries(
    data: Path, target: DatabaseTarget, lease_id: str
) -> None:
    async with open_with_keyring(data) as (store, _):
        lease, rotation = await store.get(lease_id), await store.get_rotation(STATIC)
        mounts, counts = await store.list_mounts("", 9), await store.count(EVERYTHING, None)
        root, roles = await store.get_root("aws"), await store.list_roles("aws", "", 9)
        instance = (await store.status()).instance_id
    assert await copy(data, target)
    async with opened(target) as copied:
        assert await copied.get(lease_id) == lease
        assert await copied.get_rotation(STATIC) == rotation
        assert await copied.list_mounts("", 9) == mounts
        assert await copied.get_root("aws") == root
        assert await copied.list_roles("aws", "", 9) == roles
        assert await copied.count(EVERYTHING, None) == counts
        status = await copied.status()
        assert (status.instance_id, status.expiry_hold) == (instance, "STORE_ROLLED_BACK")
        assert (status.tampered_rows, status.unreadable_rows) == ((), ())
        await copied.set_expiry_hold("")


async def test_a_copy_that_was_cut_off_continues_and_starts_no_server(
    data: Path, target: DatabaseTarget, lease_id: str
) -> None:
    shown: list[str] = []

    def cut(table: str, _: int) -> None:
        shown.append(table)
        if len(shown) == 4:
            raise CutOff

    with pytest.raises(CutOff):
        await copy(data, target, cut)
    with pytest.raises(DatabaseRefused, match="was cut off"):
        async with opened(target):
            pass
    first, shown[:] = list(shown), []
    assert await copy(data, target, lambda table, _: shown.append(table))
    assert not set(first) & set(shown)
    async with opened(target) as copied:
        assert await copied.get(lease_id)


async def test_a_finished_copy_is_only_compared(data: Path, target: DatabaseTarget) -> None:
    assert await copy(data, target)
    assert not await copy(data, target)
    async with open_source(data) as source, open_destination(target) as destination:
        digests = await compare_stores(source, destination, lambda *_: None)
    assert digests["leases"].count == 1
    assert digests["roles"].count == 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE leases SET owner = 'thief'",
        "DELETE FROM leases",
        "UPDATE roles SET etag = '' WHERE name = 'other'",
    ],
)
async def test_a_difference_is_found(data: Path, target: DatabaseTarget, change: str) -> None:
    await copy(data, target)
    shared_postgres().run(change, target.url.partition("@/")[2].partition("?")[0])
    async with open_source(data) as source, open_destination(target) as destination:
        with pytest.raises(CopyRefused, match="in the copy"):
            await compare_stores(source, destination, lambda *_: None)


async def test_a_database_in_use_is_not_copied_into(data: Path, target: DatabaseTarget) -> None:
    async with open_postgres(target, HandDatabaseClock(HandClock())):
        pass
    shared_postgres().run(
        "INSERT INTO roles VALUES ('aws', 'app', '', '{}')", target.url.partition("@/")[2].partition("?")[0]
    )
    with pytest.raises(CopyRefused, match="roles of the database has rows already"):
        await copy(data, target)


async def test_a_refusal_of_the_database_names_the_option_of_the_copy(
    data: Path, target: DatabaseTarget
) -> None:
    shared_postgres().run("CREATE TABLE others (x int)", target.url.partition("@/")[2].partition("?")[0])
    with pytest.raises(DatabaseRefused, match="of another program") as raised:
        await copy(data, target)
    assert raised.value.fix.endswith("in --to")


async def test_a_database_that_does_not_answer_is_corrected_in_the_option_of_the_copy(
    data: Path, target: DatabaseTarget
) -> None:
    with pytest.raises(DatabaseRefused) as no_server:
        await copy(data, DatabaseTarget("postgresql://lessor@127.0.0.1:9/x"))

    with pytest.raises(DatabaseRefused, match="terminated by the administrator") as ended:
        async with open_destination(target):
            raise asyncpg.AdminShutdownError("terminated by the administrator")
    with pytest.raises(DatabaseRefused, match="got result for unknown protocol state") as lost:
        async with open_destination(target):
            raise asyncpg.InternalClientError("got result for unknown protocol state 3")
    with pytest.raises(DatabaseRefused, match="did not answer in time") as silent:
        async with open_destination(target):
            raise TimeoutError
    for raised in (no_server, ended, lost, silent):
        assert raised.value.fix == "start the database, or correct the host and the port in --to"
        assert str(raised.value).count("postgresql://") == 1


async def test_a_running_server_is_not_copied(data: Path, target: DatabaseTarget) -> None:
    async with open_with_keyring(data) as (store, _):
        await store.begin(intent(7), SPAN)
        with pytest.raises(DirectoryLocked):
            await copy(data, target)


async def test_a_row_that_does_not_fit_is_named(data: Path, target: DatabaseTarget) -> None:
    assert edit(data, "UPDATE leases SET attempts = 'many'")
    with pytest.raises(CopyRefused, match="a row of leases after"):
        await copy(data, target)
