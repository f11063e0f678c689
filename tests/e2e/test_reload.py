"""Checks that a server reloads settings and certificates while it runs, and that SIGHUP does not end it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import termios
from asyncio.subprocess import PIPE, Process
from fcntl import ioctl
from pathlib import Path

import grpc
import pytest

from lessor.channel import Connection
from lessor.v1 import system_pb2, system_pb2_grpc
from tests.support.certificates import Authority, KeyPair
from tests.support.clients import until
from tests.support.dev_server import ANY_PORTS, COMMAND, READY, dev, environment, gone, names
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.e2e
SECONDS = 30.0


def info(connection: Connection) -> system_pb2.GetInfoResponse:
    """Ask a server what it is."""
    with connection.open(retries=False) as channel:
        stub = system_pb2_grpc.SystemServiceStub(channel)
        return stub.GetInfo(system_pb2.GetInfoRequest(), timeout=SECONDS, metadata=connection.metadata())


async def unusable(connection: Connection) -> list[str]:
    """Return what GetInfo says can't be used."""
    warnings = (await asyncio.to_thread(info, connection)).warnings
    return [warning.split()[1] for warning in warnings if " can't be used: " in warning]


async def logged(server: ServerProcess, event: str, count: int = 1) -> dict[str, object]:
    """Wait for the log's ``count``-th line of an event, and return it."""

    async def found() -> list[dict[str, object]]:
        return [line for line in server.log() if line["event"] == event]

    return (await until(found, lambda lines: len(lines) >= count))[count - 1]


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def reacts_to_hang_ups(pid: int) -> bool:
    """Tell whether a process ignores or handles SIGHUP by now (proc(5), SigIgn and SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn:", "SigCgt:"))]
    return any(mask & 1 << (signal.SIGHUP - 1) for mask in masks)


async def test_sighup_reloads_the_log_level_and_an_invalid_file_keeps_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "lessor.toml"
    server = ServerProcess()
    file.write_text('[log]\nlevel = "info"\n', encoding="utf-8")
    await server.start(tmp_path, None, "--config", str(file))
    try:
        connection = Connection(server.address, server.token)
        file.write_text('reflection = false\n[log]\nlevel = "debug"\n', encoding="utf-8")
        server.hang_up()
        assert (await logged(server, "reloaded"))["needs_restart"] == ["reflection"]

        file.write_text('[log]\nlevel = "loud"\n', encoding="utf-8")
        server.hang_up()
        failed = await logged(server, "reload_failed")
        assert (failed["level"], failed["what"]) == ("warning", "settings")
        assert "lessor.toml: log.level" in str(failed["error"])
        assert await unusable(connection) == ["settings"]

        file.write_text('[log]\nlevel = "error"\n', encoding="utf-8")
        server.hang_up()
        await until(lambda: unusable(connection), lambda found: not found)
        assert await server.stop() == 0
        assert [line["event"] for line in server.log()].count("reloaded") == 1
        assert "draining" not in [line["event"] for line in server.log()]
    finally:
        await server.kill()


async def test_replaced_certificates_count_from_the_next_connection_on(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    files, ca = KeyPair(tmp_path / "tls.pem", tmp_path / "tls.key"), tmp_path / "clients.pem"

    def put(authority: Authority) -> Connection:
        """Put certificates of this authority into place; return how its callers reach the server."""
        pair, client = authority.sign("server"), authority.sign("client")
        files.cert.write_bytes(pair.cert.read_bytes())
        files.key.touch(mode=0o600)
        files.key.write_bytes(pair.key.read_bytes())
        ca.write_bytes(authority.ca.read_bytes())
        address = f"https://localhost:{server.port}" if server.address else ""
        return Connection(address, server.token, None, authority.ca, client.cert, client.key)

    server = ServerProcess()
    put(old)
    settings = {
        "LESSOR_TLS_CERT_FILE": str(files.cert),
        "LESSOR_TLS_KEY_FILE": str(files.key),
        "LESSOR_TLS_CLIENT_CA_FILE": str(ca),
    }
    await server.start(tmp_path, settings)
    try:
        before = put(old)
        server.hang_up()
        await logged(server, "reloaded", 2)
        await asyncio.to_thread(info, before)
        after = put(new)
        server.hang_up()
        await logged(server, "reloaded", 4)
        await asyncio.to_thread(info, after)
        with pytest.raises(grpc.RpcError):
            await asyncio.to_thread(info, before)

        files.key.write_text("no key", encoding="ascii")
        server.hang_up()
        found = [(await logged(server, "reload_failed", count))["what"] for count in (1, 2)]
        assert found == ["settings", "certificates"]
        assert await unusable(after) == ["certificates", "settings"]
    finally:
        await server.kill()


async def test_sighup_does_not_end_the_server_while_it_starts_serves_or_drains(tmp_path: Path) -> None:
    server = ServerProcess()
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(server.start(tmp_path))
        await until(lambda: running(server), bool)
        await until(lambda: reacting(server.pid), bool)
        storm = group.create_task(hang_up_often(server))
        await starting
        await logged(server, "reloaded")
        assert await server.stop() == 0
        storm.cancel()
    assert server.log()[-1]["event"] == "stopped"


async def running(server: ServerProcess) -> bool:
    """Tell whether a server's process is there."""
    return server._process is not None


async def reacting(pid: int) -> bool:
    """Tell whether a process ignores or handles SIGHUP by now."""
    return reacts_to_hang_ups(pid)


async def hang_up_often(server: ServerProcess) -> None:
    """Send SIGHUP as long as there is a process."""
    while server._process is not None:
        server.hang_up()
        await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_a_sighup_that_a_process_sends_does_not_end_dev(tmp_path: Path) -> None:
    async with dev(tmp_path, *ANY_PORTS, LESSOR_ROOT_TOKEN="a-token-for-dev-tests") as process:
        process.process.send_signal(signal.SIGHUP)

        async def log() -> str:
            return process.errors()

        await until(log, lambda text: "reloaded" in text)
        answer = await asyncio.to_thread(info, Connection(process.address, "a-token-for-dev-tests"))
        assert answer.dev_mode
        assert await process.end(signal.SIGTERM) == 0


@pytest.mark.slow
async def test_dev_ends_with_its_terminal_and_leaves_nothing_behind(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *COMMAND, *ANY_PORTS,
        stdin=slave, stdout=PIPE, stderr=slave, env=environment(tmp_path, {}),
        preexec_fn=lambda: (os.setsid(), ioctl(0, termios.TIOCSCTTY, 0)),
    )  # fmt: skip
    os.close(slave)
    try:
        await ready(process)
        left = children(process.pid)
        os.close(master)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 0
        await gone(*left)
        assert names(tmp_path) == []
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(process: Process) -> None:
    """Wait until a dev server serves."""
    assert process.stdout is not None
    async with asyncio.timeout(2 * SECONDS):
        async for line in process.stdout:
            if READY.fullmatch(line.decode()):
                return
    raise AssertionError("it did not start")
