"""Checks that a backup is a new file below the data directory, and never one of the server's own."""

from __future__ import annotations

import grpc
import pytest

from lessor.v1 import system_pb2
from tests.support.clients import Lessor, refused
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def backup(lessor: Lessor, path: str) -> system_pb2.BackupResponse:
    """Write a copy of the store."""
    return await lessor.system.Backup(system_pb2.BackupRequest(path=path))


@pytest.mark.parametrize("path", ["../copy.db", "/copy.db", ".", "..", "a/../../copy.db", "a\0b", "a" * 1001])
async def test_a_backup_stays_in_the_data_directory(server: ServerProcess, lessor: Lessor, path: str) -> None:
    before = {one.name for one in server.data_dir.iterdir()}
    assert list((await refused(backup(lessor, path))).violations) == ["path"]
    assert {one.name for one in server.data_dir.iterdir()} == before


async def test_a_backup_overwrites_nothing(server: ServerProcess, lessor: Lessor, mount: str) -> None:
    (server.data_dir / "notes").write_text("kept")
    await backup(lessor, "copy.db")
    copy = (server.data_dir / "copy.db").read_bytes()
    await lessor.put_role(mount)
    for path in ("copy.db", "notes"):
        assert (await refused(backup(lessor, path))).code is grpc.StatusCode.ALREADY_EXISTS
    assert (server.data_dir / "copy.db").read_bytes() == copy
    assert (server.data_dir / "notes").read_text() == "kept"


@pytest.mark.parametrize(
    "path", ["lessor.db", "lessor.db-wal", "lessor.db-shm", "sealing-key", "lessor.lock"]
)
async def test_a_backup_with_the_name_of_a_server_file_is_refused(
    server: ServerProcess, lessor: Lessor, mount: str, path: str
) -> None:
    key = (server.data_dir / "sealing-key").read_bytes()
    assert list((await refused(backup(lessor, path))).violations) == ["path"]
    assert (server.data_dir / "sealing-key").read_bytes() == key
    await lessor.put_role(mount)
    await lessor.generate(mount)


async def test_the_server_continues_after_a_failed_backup(lessor: Lessor, mount: str) -> None:
    assert (await refused(backup(lessor, "sealing-key/copy.db"))).message
    await lessor.put_role(mount)
    await lessor.generate(mount)
    assert (await backup(lessor, "daily/copy.db")).path == "daily/copy.db"


async def test_a_backup_without_a_name_is_named_by_the_time(server: ServerProcess, lessor: Lessor) -> None:
    made = await backup(lessor, "")
    assert (server.data_dir / made.path).stat().st_size == made.size_bytes
