"""Checks that a server does not start with a sealing key and a database that don't belong together."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from lessor.v1 import config_pb2
from tests.support.bad_starts import refuses_to_start
from tests.support.clients import connect
from tests.support.server_process import serving

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

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


def execute(data: Path, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on a stopped server's database."""
    connection = sqlite3.connect(data / "lessor.db", isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def forget_key_id(data: Path) -> None:
    """Make the database one of a version that noted no key."""
    execute(data, "DELETE FROM meta WHERE key = 'sealing_key'")


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
    forget_key_id(data)
    lose_key(data)


def old_with_another_key(data: Path) -> None:
    """Put another key beside a database of an earlier version."""
    forget_key_id(data)
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
    for _ in range(2):
        line = await refuses_to_start(tmp_path)
        assert "sealing-key" in line
        assert "LESSOR_SEALING_ACCEPT_MISMATCH" in line
    assert key_in(data) == key


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


async def test_a_database_of_an_earlier_version_stores_the_id_of_its_key(tmp_path: Path, data: Path) -> None:
    noted = execute(data, "SELECT value FROM meta WHERE key = 'sealing_key'")
    forget_key_id(data)
    async with serving(tmp_path) as server:
        await server.stop()
    assert execute(data, "SELECT value FROM meta WHERE key = 'sealing_key'") == noted
    assert (data / "sealing-key").read_bytes().hex() not in str(noted)
    execute(data, "DELETE FROM roots")
    replace_key(data)
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.parametrize("value", ["x'ffff'", "'text'", "7"])
async def test_a_malformed_sealed_value_does_not_stop_an_upgrade(
    tmp_path: Path, data: Path, value: str
) -> None:
    forget_key_id(data)
    execute(data, f"UPDATE roots SET sealed = {value}")
    async with serving(tmp_path) as server:
        assert server.address
