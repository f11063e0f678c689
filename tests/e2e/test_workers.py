"""Checks ``lessor server --workers`` with real processes on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio

from tests.support.clients import Lessor, connect, until
from tests.support.replica_servers import database, replica
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

COUNT = 2


def workers_of(pid: int) -> set[int]:
    """Return the processes that a supervisor has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return {int(child) for child in children.split()}


async def listed(lessor: Lessor) -> set[str]:
    """Return the names of the replicas that GetInfo lists."""
    return {one.name for one in (await lessor.info()).replicas}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="settings")
async def shared(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> Mapping[str, str]:
    """Return the settings of servers of one database."""
    folder = tmp_path_factory.mktemp("workers")
    url = await asyncio.to_thread(database)
    given = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_AUDIT_FILE": str(folder / "audit.log")}
    given["LESSOR_METRICS_LISTEN"] = "127.0.0.1:0"
    return replica(folder, 0, url, given).environment


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="supervisor")
async def running(
    tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]
) -> AsyncIterator[ServerProcess]:
    """Run a server with two workers that the tests of this module share."""
    process = ServerProcess()
    await process.start(tmp_path_factory.mktemp("supervisor"), settings, "--workers", str(COUNT))
    yield process
    await process.kill()


async def test_all_workers_serve_one_port(
    supervisor: ServerProcess, settings: Mapping[str, str], aws: StandIn
) -> None:
    """Each is a replica, and has an audit file of its own."""
    async with connect(supervisor.address, supervisor.token) as lessor:
        await until(lambda: listed(lessor), lambda names: len(names) == COUNT)
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        made = await lessor.generate("aws")
        await lessor.revoke(made.lease_id)
    audit = Path(settings["LESSOR_AUDIT_FILE"])
    assert {one.name for one in audit.parent.glob("audit.log.?")} == {"audit.log.1", "audit.log.2"}


async def get(supervisor: ServerProcess, path: str) -> tuple[int, str]:
    """Return the status and the body of a page of metrics or a probe."""
    line = next(one for one in supervisor.log() if one["event"] == "serving_metrics")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{line['address']}{path}") as reply,
    ):
        return reply.status, await reply.text()


async def test_the_supervisor_serves_the_metrics_and_probes_of_all_workers(supervisor: ServerProcess) -> None:
    await until(lambda: count_serving(supervisor), lambda count: count >= COUNT)
    status, page = await get(supervisor, "/metrics")
    assert status == HTTPStatus.OK
    for number in range(1, COUNT + 1):
        assert f'lessor_worker_up{{worker="{number}"}} 1.0' in page
        assert f'process_start_time_seconds{{worker="{number}"}}' in page
    assert page.count("# TYPE lessor_leases gauge") == 1
    assert await get(supervisor, "/healthz") == (HTTPStatus.OK, "ok\n")
    assert await get(supervisor, "/readyz") == (HTTPStatus.OK, "ok\n")
    assert sum(line["event"] == "serving_metrics" for line in supervisor.log()) == 1


async def test_a_worker_that_dies_is_replaced_while_the_others_serve(supervisor: ServerProcess) -> None:
    async def replaced() -> bool:
        now = workers_of(supervisor.pid)
        return len(now) == COUNT and victim not in now

    async def serves() -> bool:
        try:
            async with connect(supervisor.address, supervisor.token) as lessor:
                return bool(await listed(lessor))
        except grpc.aio.AioRpcError:
            return False  # the connection was one that the dead worker had not accepted yet

    await until(lambda: count_serving(supervisor), lambda count: count >= COUNT)
    victim = min(workers_of(supervisor.pid))
    os.kill(victim, signal.SIGKILL)
    await until(lambda: find_running({victim}), lambda pids: not pids)
    await until(serves, bool)
    await until(replaced, bool)
    await until(lambda: count_serving(supervisor), lambda count: count > COUNT)


async def count_serving(supervisor: ServerProcess) -> int:
    """Return how many workers have begun to serve."""
    return sum(line["event"] == "worker_serves" for line in supervisor.log())


async def test_nobody_joins_the_port_of_workers(
    supervisor: ServerProcess, settings: Mapping[str, str], tmp_path: Path
) -> None:
    """Neither other workers nor a server alone: it would get a part of the connections."""
    same = {**settings, "LESSOR_LISTEN": supervisor.address}
    for options in (("--workers", "2"), ()):
        with pytest.raises(RuntimeError, match="cannot listen on"):
            await ServerProcess().start(tmp_path, same, *options)


async def test_workers_need_a_shared_store(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="several workers need PostgreSQL"):
        await ServerProcess().start(tmp_path, {}, "--workers", "2")


async def test_a_start_that_fails_is_reported_by_one_line(
    settings: Mapping[str, str], tmp_path: Path
) -> None:
    wrong = {**settings, "LESSOR_STORE_URL": "postgresql://lessor@127.0.0.1:1/none"}
    with pytest.raises(RuntimeError) as raised:
        await ServerProcess().start(tmp_path, wrong, "--workers", "2")
    lines = [line for line in str(raised.value).splitlines() if line.startswith("lessor server:")]
    assert len(lines) == 1


@pytest.mark.slow
async def test_workers_end_when_their_supervisor_is_killed(
    settings: Mapping[str, str], tmp_path: Path
) -> None:
    """Otherwise they would keep the port."""
    process, own = ServerProcess(), {**settings, "LESSOR_AUDIT_FILE": str(tmp_path / "audit.log")}
    await process.start(tmp_path, own, "--workers", "2")
    host, _, port = process.address.rpartition(":")
    await until(lambda: count_serving(process), lambda count: count == COUNT)
    left = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: find_running(left), lambda pids: not pids)
    await process.kill()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind((host, int(port)))


async def find_running(pids: set[int]) -> set[int]:
    """Return those that run."""
    return {pid for pid in pids if is_running(pid)}


def is_running(pid: int) -> bool:
    """Return whether a process runs, and is not only waiting to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_all_workers_drain_together(supervisor: ServerProcess) -> None:
    async with connect(supervisor.address, supervisor.token) as lessor:
        assert await listed(lessor)
    assert await supervisor.stop() == 0
    stopped = [line for line in supervisor.log() if line["event"] == "stopped"]
    assert len(stopped) == COUNT
