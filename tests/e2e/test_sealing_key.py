"""Checks that a server does not start with a sealing key and a database that don't belong together."""

from __future__ import annotations

import base64
import gzip
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, system_pb2
from tests.support.bad_starts import refuses_to_start
from tests.support.clients import connect
from tests.support.server_process import serving

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

OLD = Path(__file__).parents[1] / "fixtures" / "data_of_ea658e4"
"""A data directory of a version without data keys."""
ACCEPT = {"LESSOR_SEALING_ACCEPT_MISMATCH": "true"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a server that has a root, and was stopped."""
    folder = tmp_path_factory.mktemp("sealed")
    async with serving(folder) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.config.EnableMount(config_pb2.EnableMountRequest())
            root = config_pb2.RootConfig(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="not-a-secret")
            await lessor.config.SetRoot(config_pb2.SetRootRequest(config=root))
        await server.stop()
    return folder / "data"


@pytest.fixture
def data(sealed: Path, tmp_path: Path) -> Path:
    """Copy that data directory for one test to damage."""
    return Path(shutil.copytree(sealed, tmp_path / "data"))


def write_key(data: Path, key: bytes) -> None:
    """Put another key into a data directory."""
    (data / "sealing-key").write_bytes(key)


def key_in(data: Path) -> bytes | None:
    """Return the key of a data directory, if it has one."""
    file = data / "sealing-key"
    return file.read_bytes() if file.exists() else None


def database_of(data: Path) -> dict[str, bytes]:
    """Return the bytes of the database and of what SQLite keeps beside it."""
    return {file.name: file.read_bytes() for file in data.glob("lessor.db*")}


def execute(data: Path, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on a stopped server's database."""
    connection = sqlite3.connect(data / "lessor.db", isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def make_old(data: Path) -> None:
    """Replace the directory by one of a version without data keys."""
    for file in data.iterdir():
        file.unlink()
    (data / "lessor.db").write_bytes(gzip.decompress((OLD / "lessor.db.gz").read_bytes()))
    write_key(data, (OLD / "sealing-key").read_bytes())
    (data / "sealing-key").chmod(0o600)


def drop_database(data: Path) -> None:
    """Lose the database and what belongs to it."""
    for file in data.glob("lessor.db*"):
        file.unlink()


def empty_database(data: Path) -> None:
    """Lose what is in the database, as a full disk or a mistyped command may."""
    drop_database(data)
    (data / "lessor.db").touch(mode=0o600)


def replace_key(data: Path) -> None:
    """Put the key of another installation there."""
    write_key(data, os.urandom(32))


def lose_key(data: Path) -> None:
    """Delete the key."""
    (data / "sealing-key").unlink()


def old_without_key(data: Path) -> None:
    """Delete the key of a database of an earlier version."""
    make_old(data)
    lose_key(data)


def old_with_another_key(data: Path) -> None:
    """Put another key beside a database of an earlier version."""
    make_old(data)
    replace_key(data)


DAMAGES: list[Callable[[Path], None]] = [
    lose_key,
    replace_key,
    old_without_key,
    old_with_another_key,
    drop_database,
    empty_database,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_key_and_a_database_that_do_not_belong_together_stop_the_start(
    tmp_path: Path, data: Path, damage: Callable[[Path], None]
) -> None:
    damage(data)
    key = key_in(data)
    before = database_of(data)
    for _ in range(2):
        line = await refuses_to_start(tmp_path)
        assert "sealing-key" in line
        assert "LESSOR_SEALING_ACCEPT_MISMATCH" in line
    assert key_in(data) == key
    assert database_of(data) == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_mismatch_is_accepted_once_for_all_later_starts(
    tmp_path: Path, data: Path, damage: Callable[[Path], None]
) -> None:
    damage(data)
    async with serving(tmp_path, ACCEPT) as server:
        key = key_in(data)
        await server.stop()
    async with serving(tmp_path):
        assert key_in(data) == key


async def test_a_database_of_an_earlier_version_is_sealed_under_a_data_key(
    tmp_path: Path, data: Path
) -> None:
    make_old(data)
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            warnings = [one for one in (await lessor.info()).warnings if "audit" not in one]
            assert ["the fixture" in one for one in warnings] == [True]
            leases = await lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix="aws/"))
            assert len(leases.leases) == 4
            answer = await lessor.leases.LookupLease(
                lease_pb2.LookupLeaseRequest(lease_id=leases.leases[0].lease_id)
            )
            assert answer.warnings == []
            static = creds_pb2.GetStaticCredentialsRequest(role="nightly")
            assert len((await lessor.creds.GetStaticCredentials(static)).secret_key) == 40
        await server.stop()
    ((wrapped_by,),) = execute(data, "SELECT wrapped_by FROM sealing_keys")
    assert (data / "sealing-key").read_bytes().hex() not in str(wrapped_by)
    assert execute(data, "SELECT count(*) FROM leases WHERE mac = x''") == [(0,)]
    execute(data, "DELETE FROM roots")
    replace_key(data)
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.parametrize("value", ["x'ffff'", "'text'", "7"])
async def test_a_malformed_sealed_value_does_not_stop_an_upgrade(
    tmp_path: Path, data: Path, value: str
) -> None:
    make_old(data)
    execute(data, f"UPDATE roots SET sealed = {value}")
    async with serving(tmp_path) as server:
        assert server.address


async def test_a_database_that_lost_its_data_keys_stops_the_start(tmp_path: Path, data: Path) -> None:
    execute(data, "DELETE FROM sealing_keys")
    for _ in range(2):
        assert "lost its data keys" in await refuses_to_start(tmp_path)
    assert execute(data, "SELECT count(*) FROM sealing_keys") == [(0,)]


async def test_rows_that_lost_their_data_keys_and_macs_are_not_sealed_again(
    tmp_path: Path, data: Path
) -> None:
    """Otherwise who can write the database could have forged rows sealed by the next start."""
    async with serving(tmp_path):
        pass
    assert (data / "rows-sealed").exists()
    with closing(sqlite3.connect(data / "lessor.db")) as database:
        database.executescript(
            "DELETE FROM row_macs; DELETE FROM sealing_keys; UPDATE leases SET mac = x''; DELETE FROM roots;"
            "DELETE FROM meta WHERE key = 'sealing_key_id';"
        )
    refusal = await refuses_to_start(tmp_path)
    assert "SEALING_KEY_MISMATCH" in refusal or "has no data keys" in refusal


async def test_a_key_in_a_variable_opens_what_the_file_sealed(tmp_path: Path, data: Path) -> None:
    key = (data / "sealing-key").read_bytes()
    (data / "sealing-key").unlink()
    chosen = {"LESSOR_SEALING_KEY": "env:THE_KEY", "THE_KEY": base64.b64encode(key).decode()}
    async with serving(tmp_path, chosen) as server:
        async with connect(server.address, server.token) as lessor:
            root = await lessor.config.GetRoot(config_pb2.GetRootRequest())
            assert root.config.access_key == "AKIAIOSFODNN7EXAMPLE"
        await server.stop()
    assert not (data / "sealing-key").exists()
    chosen["THE_KEY"] = base64.b64encode(bytes(32)).decode()
    line = await refuses_to_start(tmp_path, **chosen)
    assert "THE_KEY" in line
    assert "AAAA" not in line


async def test_a_new_database_may_be_sealed_by_a_key_that_is_there(tmp_path: Path) -> None:
    """Other than the default file, which belongs to a database that was lost."""
    file = tmp_path / "brought-key"
    file.write_bytes(bytes(range(32)))
    file.chmod(0o600)
    chosen = {"LESSOR_SEALING_KEY": f"file:{file}"}
    async with serving(tmp_path, chosen) as server:
        await server.stop()
    assert not (tmp_path / "data" / "sealing-key").exists()
    file.unlink()
    assert "brought-key is missing" in await refuses_to_start(tmp_path, **chosen)
    assert not file.exists()


async def test_rotate_sealing_key_answers_with_the_new_key(tmp_path: Path, data: Path) -> None:
    ((before,),) = execute(data, "SELECT id FROM sealing_keys")
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            answer = await lessor.system.RotateSealingKey(system_pb2.RotateSealingKeyRequest())
            assert answer.resealed == 1
            await lessor.config.GetRoot(config_pb2.GetRootRequest())
            assert not [one for one in (await lessor.info()).warnings if "row" in one]
        await server.stop()
    assert [(answer.key_id,)] == execute(data, "SELECT id FROM sealing_keys") != [(before,)]
