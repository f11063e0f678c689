"""Checks a real server while a disk of its PostgreSQL is full: that of the tables, then that of the log.

PostgreSQL answers reads and small changes while there is no room for its tables. If it cannot write its log
it panics, and does not start again before there is room.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from lessor.v1 import lease_pb2
from tests.support.clients import Lessor, connect, nothing_left, refused, until, users_of
from tests.support.postgres import PostgresProcess
from tests.support.server_process import ServerProcess
from tests.support.small_disk import fill, small_disk
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LOG = {"wal_recycle": "off", "max_wal_size": "1GB"}
"""Nothing of the log is deleted or written before it is needed."""
BURN = "".join(f"CREATE TABLE more_{n} (); SELECT pg_switch_wal(); " for n in range(20))
A_WHILE = 2.5
"""Seconds in which a server probes its database twice."""


@pytest.fixture(scope="module", name="disks")
def disks_of_postgresql() -> Iterator[tuple[Path, Path]]:
    """Mount a disk for tables and one for the log, which the user of PostgreSQL can reach."""
    folder = Path(tempfile.mkdtemp(prefix="lessor-pg-"))
    folder.chmod(0o755)
    try:
        with small_disk(folder / "tables", "80m") as tables, small_disk(folder / "log", "16m") as log:
            yield tables, log
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", name="postgres")
def postgres_on_small_disks(disks: tuple[Path, Path]) -> Iterator[PostgresProcess]:
    """Run a PostgreSQL on them."""
    tables, log = disks
    PostgresProcess(log / "server").own_folder()
    postgres = PostgresProcess(tables / "server")
    postgres.create("--wal-segsize=1", f"--waldir={log / 'server' / 'wal'}")
    postgres.start(**LOG)
    yield postgres
    if postgres.process is not None:
        postgres.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serving(
    postgres: PostgresProcess, tmp_path_factory: pytest.TempPathFactory, aws: StandIn
) -> AsyncIterator[ServerProcess]:
    """Run a server on this PostgreSQL."""
    folder = tmp_path_factory.mktemp("server")
    key = folder / "sealing-key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    process = ServerProcess()
    settings = {
        "LESSOR_STORE_URL": postgres.url(),
        "LESSOR_SEALING_KEY": f"file:{key}",
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
    }
    await process.start(folder, settings)
    async with connect(process.address, process.token) as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
    yield process
    await process.kill()


async def issue_into(leases: list[str], lessor: Lessor) -> None:
    """Issue until the server refuses."""
    while True:
        leases.append((await lessor.generate("aws")).lease_id)


def count(server: ServerProcess, event: str) -> int:
    """Return how often the log has an event."""
    return sum(line["event"] == event for line in server.log())


async def test_no_room_for_tables_is_one_event_and_ends_when_there_is_room(
    server: ServerProcess, disks: tuple[Path, Path], aws: StandIn
) -> None:
    async with connect(server.address, server.token) as lessor:
        await lessor.generate("aws")
        filler = fill(disks[0])
        leases: list[str] = []
        error = await refused(issue_into(leases, lessor))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert await lessor.health() == NOT_SERVING
        for _ in range(5):  # reads work, and must not count as a recovery
            await lessor.lookup(leases[0])
            await asyncio.sleep(A_WHILE / 5)
        assert await lessor.health() == NOT_SERVING
        failed = [line for line in server.log() if line["event"] == "store_failed"]
        assert len(failed) == 1
        assert "No space left on device" in str(failed[0])
        assert not count(server, "store_back")
        filler.unlink()
        await until(lessor.health, lambda status: status == SERVING)
        assert count(server, "store_back") == 1
        for lease in leases:
            await lessor.revoke(lease)
        await until(lambda: users_of(aws, "aws"), lambda users: len(users) == 1)
        await lessor.generate("aws")


async def test_no_room_for_the_log_ends_postgresql_and_the_server_outlives_it(
    server: ServerProcess, postgres: PostgresProcess, disks: tuple[Path, Path], aws: StandIn
) -> None:
    before = count(server, "store_failed")
    async with connect(server.address, server.token) as lessor:
        filler = fill(disks[1])
        with pytest.raises(subprocess.CalledProcessError):
            await asyncio.to_thread(postgres.run, BURN)
        error = await refused(lessor.generate("aws"))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert await lessor.health() == NOT_SERVING
        assert postgres.process is not None
        await asyncio.to_thread(postgres.process.wait, 30)  # it can't start again
        assert "PANIC" in (postgres.folder / "log").read_text()
        filler.unlink()
        await asyncio.to_thread(postgres.start, **LOG)
        await until(lessor.health, lambda status: status == SERVING)
        assert count(server, "store_failed") == before + 1
        prefix = lease_pb2.RevokePrefixRequest(prefix="aws/", sync=True)
        assert [one async for one in lessor.leases.RevokePrefix(prefix)]
    await nothing_left(aws, "aws")
