"""Checks a server on a full disk, its files, and how it ends. Each test has a server of its own."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, lease_pb2, role_pb2, system_pb2
from tests.support.clients import ROOT_SECRET, Lessor, connect, nothing_left, refused, root_at, until
from tests.support.grpcurl import Grpcurl
from tests.support.server_process import COMMAND, ServerProcess, bare_environment, serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
Health = health_pb2.HealthCheckResponse


@asynccontextmanager
async def working(folder: Path, aws: StandIn) -> AsyncIterator[tuple[ServerProcess, Lessor]]:
    """Run a server with the mount ``aws``, its root and a role."""
    async with (
        serving(folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        yield server, lessor


# --- while it runs --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_full_disk_is_unavailable_until_there_is_space(tmp_path: Path, aws: StandIn) -> None:
    async with working(tmp_path, aws) as (server, lessor):
        await lessor.generate("aws", ttl=1)
        await aws.forget_calls()
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        refusal = await refused(lessor.generate("aws"))
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert await aws.calls("CreateUser") == []
        assert await lessor.health() == Health.NOT_SERVING, "known since the first write that failed"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await until(lessor.health, lambda status: status == Health.SERVING, seconds=5)
        await nothing_left(aws, "aws")
        assert (await lessor.generate("aws")).lease_id


async def test_a_full_disk_is_noticed_without_anything_to_revoke(tmp_path: Path) -> None:
    """By the writes of any call, and by the server's own tries."""
    async with serving(tmp_path) as server, connect(server.address, server.token) as lessor:
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        refusal = await refused(lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="aws")))
        assert refusal.reason == "STORE_UNAVAILABLE"
        assert await lessor.health() == Health.NOT_SERVING
        await asyncio.sleep(2.5)  # two of the server's own tries, which must not take the disk for mended
        assert await lessor.health() == Health.NOT_SERVING
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await until(lessor.health, lambda status: status == Health.SERVING, seconds=5)
        events = [line["event"] for line in server.log()]
        assert [event for event in events if event in ("store_failed", "store_back")] == [
            "store_failed",
            "store_back",
        ]


async def test_files_in_the_data_directory_are_private(tmp_path: Path, aws: StandIn) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    async with working(tmp_path, aws) as (_, lessor):
        await lessor.generate("aws")
        await lessor.system.Backup(system_pb2.BackupRequest(path="copies/daily/copy.db"))
        modes = {str(one.relative_to(data)): one.stat().st_mode & 0o777 for one in data.rglob("*")}
    assert {"lessor.db", "lessor.db-wal", "lessor.lock", "sealing-key", "copies/daily/copy.db"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.slow
async def test_an_endpoint_that_is_no_longer_allowed_is_not_called(tmp_path: Path, aws: StandIn) -> None:
    async with working(tmp_path, aws) as (server, _):
        await server.stop()
        await server.start(tmp_path)
        await aws.forget_calls()
        async with connect(server.address, server.token) as lessor:
            refusal = await refused(lessor.generate("aws"))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ENDPOINT_NOT_ALLOWED")
        assert await aws.calls() == []


@pytest.mark.slow
async def test_after_another_sealing_key_is_accepted_the_root_must_be_set_again(
    tmp_path: Path, aws: StandIn
) -> None:
    async with working(tmp_path, aws) as (server, _):
        await server.stop()
        (tmp_path / "data" / "sealing-key").unlink()
        settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_SEALING_ACCEPT_MISMATCH": "true"}
        await server.start(tmp_path, settings)
        (accepted,) = [line for line in server.log() if line["event"] == "sealing_key_mismatch_accepted"]
        assert accepted["level"] == "warning"
        async with connect(server.address, server.token) as lessor:
            refusal = await refused(lessor.generate("aws"))
            assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "SEAL_BROKEN")
            again = config_pb2.SetRootRequest(config=root_at(aws.url), update_mask={"paths": ["region"]})
            refusal = await refused(lessor.config.SetRoot(again))
            assert refusal.reason == "SEAL_BROKEN"
            again.ClearField("update_mask")
            await lessor.config.SetRoot(again)
            assert (await lessor.generate("aws")).access_key


@pytest.mark.slow
async def test_an_insecure_listener_is_warned_of(tmp_path: Path) -> None:
    """By GetInfo."""
    settings = {"LESSOR_LISTEN": "0.0.0.0:0", "LESSOR_INSECURE_LISTEN": "true"}
    async with serving(tmp_path, settings) as server:
        async with connect(f"127.0.0.1:{server.port}", server.token) as lessor:
            info = await lessor.info()
        assert any("insecure" in warning for warning in info.warnings)


@pytest.mark.slow
async def test_reflection_can_be_turned_off(tmp_path: Path) -> None:
    async with serving(tmp_path, {"LESSOR_REFLECTION": "false"}) as server:
        assert (await Grpcurl(server.address, server.token).list()).code != 0
        async with connect(server.address, server.token) as lessor:
            assert (await lessor.info()).instance_id


@pytest.mark.slow
async def test_a_server_can_listen_on_a_unix_socket(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, {"LESSOR_LISTEN": f"unix:{tmp_path}/lessor.sock"}) as server,
        connect(server.address, server.token) as lessor,
    ):
        assert (await lessor.info()).instance_id


# --- secrets --------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_private_root_token_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "data" / "root-token"
    tokens = set()
    env = {
        **bare_environment(),
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_DATA_DIR": str(tmp_path / "data"),
        "LESSOR_LOG_FORMAT": "json",
    }
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMAND,
            env=env,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        log = b""
        while b'"serving"' not in log:
            log += await process.stderr.readline()
        address = log.decode().split('"address": "')[1].split('"')[0]
        token = file.read_text().strip()
        tokens.add(token)
        async with connect(address, token) as lessor:
            assert (await lessor.info()).instance_id
        process.terminate()
        log += await process.stderr.read()
        assert await process.wait() == 0
        assert token.encode() not in log
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(tokens) == 1
    assert len(tokens.pop()) >= 16


async def test_no_secret_is_in_the_log_or_on_the_disk(tmp_path: Path, aws: StandIn) -> None:
    async with working(tmp_path, aws) as (server, lessor):
        made = [await lessor.generate("aws") for _ in range(3)]
        await lessor.revoke(made[0].lease_id)
        await aws.fault("refuse", "CreateAccessKey", nth=1)
        await refused(lessor.generate("aws"))
        await refused(
            lessor.config.SetRoot(
                config_pb2.SetRootRequest(
                    config=config_pb2.RootConfig(access_key="short", secret_key=ROOT_SECRET)
                )
            )
        )
        async with connect(server.address, f"{server.token}-and-more") as stranger:
            await refused(stranger.info())
        secrets = [ROOT_SECRET, server.token, *(one.secret_key for one in made)]
        files = [server.log_file, *(path for path in server.data_dir.rglob("*") if path.is_file())]
        await server.kill()
    assert len(files) > 2
    for path in files:
        content = path.read_bytes() if path.exists() else b""
        assert not any(secret.encode() in content for secret in secrets), path
    assert server.data_dir.stat().st_mode & 0o077 == 0


# --- ends -----------------------------------------------------------------------------------------------


async def test_sigterm_lets_calls_in_flight_finish(tmp_path: Path, aws: StandIn) -> None:
    async with working(tmp_path, aws) as (server, lessor):
        await aws.forget_calls()
        await aws.fault("delay", "CreateAccessKey", nth=1, seconds=3.0)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(lessor.generate("aws"))
            await until(lambda: aws.calls("CreateAccessKey"), bool)
            stopping = group.create_task(server.stop())
            await until(lessor.health, lambda status: status == Health.NOT_SERVING)
            refusal = await refused(lessor.lookup(f"aws/creds/app/{'0' * 24}"))
            assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "DRAINING")
        assert stopping.result() == 0
        assert asked.result().access_key
        await server.start(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url})
        async with connect(server.address, server.token) as again:
            lease = await again.lookup(asked.result().lease_id)
            assert lease.state == lease_pb2.Lease.State.ACTIVE
            await again.revoke(lease.lease_id)


@pytest.mark.slow
async def test_an_idle_server_exits_in_time_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="kept"))
            await lessor.put_role("kept")
            before = (await lessor.info()).instance_id
        assert await server.stop() == 0
        await server.start(tmp_path)
        async with connect(server.address, server.token) as lessor:
            assert (await lessor.info()).instance_id == before
            kept = await lessor.roles.GetRole(role_pb2.GetRoleRequest(mount="kept", name="app"))
            assert kept.role.name == "app"
