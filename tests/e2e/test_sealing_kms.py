"""Checks a server whose key-encryption key is in AWS KMS, and the change from one sealing key to another."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, lease_pb2, system_pb2
from tests.support.bad_starts import environment, refuses_to_start
from tests.support.clients import Lessor, connect, refused, until
from tests.support.command_line import Done
from tests.support.forked import run_forked
from tests.support.server_process import TOKEN, ServerProcess, serving
from tests.support.standin_control import StandIn
from tests.support.standin_fixtures import aws, url

__all__ = ["aws", "url"]
pytestmark = pytest.mark.e2e

ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-555555555555"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def kms_at(aws_url: str) -> dict[str, str]:
    """Return the settings of a server with its sealing key in the stand-in."""
    return {
        "LESSOR_SEALING_KEY": f"awskms:{ARN}?endpoint={aws_url}",
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws_url,
        "AWS_ACCESS_KEY_ID": "AKIAAMBIENT",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    }


async def set_root(lessor: Lessor) -> None:
    """Store something that is sealed."""
    await lessor.config.EnableMount(config_pb2.EnableMountRequest())
    root = config_pb2.RootConfig(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="not-a-secret")
    await lessor.config.SetRoot(config_pb2.SetRootRequest(config=root))


async def require_root(folder: Path, settings: Mapping[str, str]) -> None:
    """Start a server, and check that it opens what is sealed."""
    async with serving(folder, settings) as server, connect(server.address, server.token) as lessor:
        root = await lessor.config.GetRoot(config_pb2.GetRootRequest())
        assert root.config.access_key == "AKIAIOSFODNN7EXAMPLE"


async def test_a_start_asks_kms_once_and_leaves_no_key_file(tmp_path: Path, aws: StandIn) -> None:
    settings = kms_at(aws.url)
    async with serving(tmp_path, settings) as server:
        async with connect(server.address, server.token) as lessor:
            await set_root(lessor)
            await lessor.system.RotateSealingKey(system_pb2.RotateSealingKeyRequest())
        await server.stop()
    assert not (tmp_path / "data" / "sealing-key").exists()
    before = await aws.kms()
    await require_root(tmp_path, settings)
    after = await aws.kms()
    assert (after["Decrypt"] - before.get("Decrypt", 0), after["Encrypt"]) == (1, before["Encrypt"])


@pytest.mark.parametrize("trouble", ["Disabled", "PendingDeletion", "ThrottlingException"])
async def test_while_kms_is_away_the_port_serves_health_only(
    tmp_path: Path, aws: StandIn, trouble: str
) -> None:
    settings = kms_at(aws.url)
    async with serving(tmp_path, settings) as server:
        async with connect(server.address, server.token) as lessor:
            await set_root(lessor)
        await server.stop()
    if "Exception" in trouble:
        await aws.kms(fault=trouble)
    else:
        await aws.kms(arn=ARN, state=trouble)
    server = ServerProcess()
    address = f"unix:{tmp_path}/socket"
    starting = asyncio.ensure_future(server.start(tmp_path, settings | {"LESSOR_LISTEN": address}))
    try:
        async with connect(address, TOKEN) as lessor:
            await until(lambda: health_of(lessor), lambda found: found == NOT_SERVING)
            for call in (
                lessor.config.GetRoot(config_pb2.GetRootRequest()),
                lessor.system.GetInfo(system_pb2.GetInfoRequest()),
                lessor.leases.LookupLease(lease_pb2.LookupLeaseRequest(lease_id="x")),
                lessor.raw("lessor.v1.NoService/NoMethod"),
            ):
                refusal = await refused(call)
                assert refusal.code is grpc.StatusCode.UNAVAILABLE
                assert refusal.reason == "SEALING_KEY_UNAVAILABLE"
            assert not starting.done()
            await aws.kms(arn=ARN, state="Enabled", fault="")
            await starting
            assert await lessor.health() == SERVING
            root = await lessor.config.GetRoot(config_pb2.GetRootRequest())
            assert root.config.access_key == "AKIAIOSFODNN7EXAMPLE"
        assert "sealing_key_away" in {line["event"] for line in server.log()}
        assert await server.stop() == 0
    finally:
        starting.cancel()
        await server.kill()


async def health_of(lessor: Lessor) -> int:
    """Return the health, or -1 while nothing listens."""
    try:
        return await lessor.health()
    except grpc.aio.AioRpcError:
        return -1


async def test_a_server_that_waits_for_kms_stops_on_sigterm(tmp_path: Path, aws: StandIn) -> None:
    await aws.kms(fault="ThrottlingException")
    settings = kms_at(aws.url) | {"LESSOR_LISTEN": f"unix:{tmp_path}/socket"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lessor.cli.main", "server", env=environment(tmp_path, settings)
    )
    async with connect(f"unix:{tmp_path}/socket", TOKEN) as lessor:
        await until(lambda: health_of(lessor), lambda found: found == NOT_SERVING, 30)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_removed_key_ends_the_start_with_one_line(tmp_path: Path, aws: StandIn) -> None:
    settings = kms_at(aws.url)
    async with serving(tmp_path, settings) as server:
        await server.stop()
    await aws.kms(arn=ARN, state="Removed")
    assert "NotFoundException" in await refuses_to_start(tmp_path, **settings)
    refused_endpoint = settings | {"LESSOR_AWS_ALLOWED_ENDPOINTS": ""}
    assert "allowed_endpoints" in await refuses_to_start(tmp_path, **refused_endpoint)


async def test_a_rotation_that_kms_refuses_changes_nothing(tmp_path: Path, aws: StandIn) -> None:
    async with serving(tmp_path, kms_at(aws.url)) as server, connect(server.address, server.token) as lessor:
        await set_root(lessor)
        rotate = system_pb2.RotateSealingKeyRequest()
        await aws.kms(arn=ARN, state="Removed")
        refusal = await refused(lessor.system.RotateSealingKey(rotate))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "SEALING_KEY_UNUSABLE",
        )
        await aws.kms(arn=ARN, state="Enabled", fault="AccessDeniedException", action="Decrypt")
        refusal = await refused(lessor.system.RotateSealingKey(rotate))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "SEALING_KEY_UNAVAILABLE",
        )
        await server.kill()
    await aws.kms(fault="")
    await require_root(tmp_path, kms_at(aws.url))


async def rewrap(folder: Path, to: str, **variables: str) -> Done:
    """Run ``lessor sealing rewrap``."""
    words = ("sealing", "rewrap", "--to", to)
    code, out, err = await run_forked(words, environment(folder, variables), folder, b"")
    return Done(code, out.decode(), err.decode())


async def test_rewrap_goes_from_a_file_to_kms_to_a_variable_and_back(tmp_path: Path, aws: StandIn) -> None:
    in_kms = kms_at(aws.url)
    key = base64.b64encode(bytes(range(32))).decode()
    in_variable = {"LESSOR_SEALING_KEY": "env:THE_KEY", "THE_KEY": key}
    in_file = {"LESSOR_SEALING_KEY": f"file:{tmp_path}/new-key"}
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            await set_root(lessor)
            running = await rewrap(tmp_path, "env:THE_KEY", THE_KEY=key)
            assert running.code == 1
            assert "is used by the server" in running.err
        await server.stop()
    steps = [
        ({}, in_kms["LESSOR_SEALING_KEY"], in_kms),
        (in_kms, "env:THE_KEY", in_variable),
        ({"LESSOR_SEALING_KEY": key}, f"file:{tmp_path}/new-key", in_file),
    ]
    for old, to, settings in steps:
        done = await rewrap(tmp_path, to, **(in_kms | {"THE_KEY": key} | drop(old)))
        assert (done.code, done.err) == (0, ""), done
        assert key not in done.out
        await require_root(tmp_path, settings)
        for wrong in steps:
            if wrong[2] is not settings:
                line = await refuses_to_start(tmp_path, **wrong[2])
                assert "SEALING_ACCEPT_MISMATCH" in line


def drop(old: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an old key; without one the default file holds."""
    return {"LESSOR_SEALING_KEY": "", **old}


async def test_rewrap_to_a_key_that_does_not_decrypt_changes_nothing(tmp_path: Path, aws: StandIn) -> None:
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            await set_root(lessor)
        await server.stop()
    in_kms = kms_at(aws.url)
    await aws.kms(fault="AccessDeniedException", action="Decrypt")
    done = await rewrap(tmp_path, in_kms["LESSOR_SEALING_KEY"], **in_kms | {"LESSOR_SEALING_KEY": ""})
    assert done.code == 1
    assert "kms:Decrypt" in done.err
    assert "nothing was changed" in done.err
    await require_root(tmp_path, {})


@pytest.mark.parametrize("to", ["nowhere", "awskms:x", "file:", "env:A-B"])
async def test_rewrap_to_a_malformed_place_changes_nothing(tmp_path: Path, to: str) -> None:
    done = await rewrap(tmp_path, to)
    assert done.code == 2
    assert not (tmp_path / "data").exists()


async def test_rewrap_with_the_wrong_old_key_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with connect(server.address, server.token) as lessor:
            await set_root(lessor)
        await server.stop()
    wrong = base64.b64encode(bytes(32)).decode()
    done = await rewrap(tmp_path, f"file:{tmp_path}/new", LESSOR_SEALING_KEY=wrong)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert wrong not in done.err
    assert not (tmp_path / "new").exists()
    await require_root(tmp_path, {})
