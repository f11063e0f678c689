"""Checks what survives a restart: revoked prefixes, expiry holds and backups."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from lessor.v1 import lease_pb2, system_pb2
from tests.support.clients import Lessor, connect, nothing_left, refused, until, users_of
from tests.support.own_server import own_server
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State = lease_pb2.Lease.State
HOUR = 3600.0


@pytest.fixture(scope="module")
def settings(aws: StandIn) -> dict[str, str]:
    """Let servers reach the stand-in."""
    return {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}


@pytest_asyncio.fixture(loop_scope="module", name="server")
async def ready_server(
    tmp_path: Path, aws: StandIn, settings: dict[str, str]
) -> AsyncIterator[ServerProcess]:
    """Run a server of the test's own, over an account without users, with the mount `aws` and a role."""
    await aws.reset()
    async with own_server(tmp_path, aws, settings) as process:
        yield process


async def backup(lessor: Lessor, path: str) -> system_pb2.BackupResponse:
    """Write a copy of the store."""
    return await lessor.system.Backup(system_pb2.BackupRequest(path=path))


async def warnings(lessor: Lessor) -> str:
    """Return what GetInfo warns of."""
    return "\n".join(one for one in (await lessor.info()).warnings if "there is no audit" not in one)


async def resume(lessor: Lessor, *, lower_clock: bool = False) -> None:
    """Let expiries count again."""
    await lessor.system.ResumeExpiry(system_pb2.ResumeExpiryRequest(lower_clock=lower_clock))


async def reconcile(lessor: Lessor, *, apply: bool) -> list[lease_pb2.ReconcileResponse]:
    """Compare the account with the store."""
    return [one async for one in lessor.leases.Reconcile(lease_pb2.ReconcileRequest(apply=apply))]


@pytest.mark.slow
async def test_a_bulk_revocation_survives_a_kill(
    server: ServerProcess, aws: StandIn, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        leases = [(await lessor.generate("aws")).lease_id for _ in range(5)]
        await aws.latency(1.0)
        request = lease_pb2.RevokePrefixRequest(prefix="aws/creds/app/")
        stream = aiter(lessor.leases.RevokePrefix(request))
        assert (await anext(stream)).accepted == 5
    await server.kill()
    assert len(await users_of(aws, "aws")) == 5
    await aws.latency(0)
    await server.start(tmp_path, settings)
    await nothing_left(aws, "aws")
    async with connect(server.address, server.token) as lessor:
        for lease in leases:
            await until(lambda lease=lease: lessor.lookup(lease), lambda found: found.state == State.GONE)  # type: ignore[misc]


@pytest.mark.slow
async def test_a_hold_survives_a_restart(
    server: ServerProcess, aws: StandIn, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        await lessor.system.HoldExpiry(system_pb2.HoldExpiryRequest(reason="a move"))
        assert "a move" in await warnings(lessor)
        lease = (await lessor.generate("aws", ttl=1)).lease_id
        asked = (await lessor.generate("aws")).lease_id
    await server.kill()
    await server.start(tmp_path, settings)
    async with connect(server.address, server.token) as lessor:
        assert "a move" in await warnings(lessor)
        await until(lambda: lessor.lookup(lease), lambda found: found.state == State.REVOKING)
        assert (await lessor.revoke(asked)).outcome == lease_pb2.RevokeLeaseResponse.GONE
        assert len(await users_of(aws, "aws")) == 1
        await resume(lessor)
        assert await warnings(lessor) == ""
    await nothing_left(aws, "aws")


async def test_lower_clock_is_refused_unless_aws_confirms_the_clock(
    server: ServerProcess, aws: StandIn
) -> None:
    async with connect(server.address, server.token) as lessor:
        await lessor.generate("aws")
        await aws.account(clock_offset=-HOUR)
        refusal = await refused(resume(lessor, lower_clock=True))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CLOCK_DISAGREES")
        await aws.account(clock_offset=0)
        await resume(lessor, lower_clock=True)


async def test_a_server_starts_from_a_backup(
    server: ServerProcess, aws: StandIn, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        lease = (await lessor.generate("aws")).lease_id
        instance = (await lessor.info()).instance_id
        made = await backup(lessor, "copy.db")
    assert made.path == "copy.db"
    assert (server.data_dir / "copy.db").stat().st_size == made.size_bytes
    assert (server.data_dir / "copy.db").stat().st_mode & 0o777 == 0o600
    await server.kill()
    restored = await _restored(server, tmp_path, settings)
    try:
        async with connect(restored.address, restored.token) as lessor:
            assert (await lessor.info()).instance_id == instance
            assert (await lessor.lookup(lease)).state == State.ACTIVE
            assert (await lessor.revoke(lease)).outcome == lease_pb2.RevokeLeaseResponse.GONE
            await lessor.generate("aws")
            assert len(await users_of(aws, "aws")) == 1
    finally:
        await restored.kill()


@pytest.mark.slow
async def test_a_backup_older_than_the_account_holds_expiries(
    server: ServerProcess, aws: StandIn, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        await lessor.generate("aws")
        await backup(lessor, "copy.db")
        await aws.account(clock_offset=-HOUR)
        await lessor.generate("aws")
        await aws.account(clock_offset=0)
    await server.kill()
    restored = await _restored(server, tmp_path, settings)
    try:
        async with connect(restored.address, restored.token) as lessor:
            await until(lambda: warnings(lessor), lambda texts: "STORE_ROLLED_BACK" in texts)
            (finding,) = await reconcile(lessor, apply=True)
            assert (finding.kind, finding.applied) == (lease_pb2.ReconcileResponse.UNKNOWN_USER, False)
            await resume(lessor)
            (finding,) = await reconcile(lessor, apply=True)
            assert finding.applied
            await until(lambda: users_of(aws, "aws"), lambda users: len(users) == 1)
            assert await warnings(lessor) == ""
    finally:
        await restored.kill()


async def _restored(server: ServerProcess, tmp_path: Path, settings: dict[str, str]) -> ServerProcess:
    """Start another server on the copy `copy.db` of the one that was, with its sealing key."""
    folder = tmp_path / "restored"
    (folder / "data").mkdir(parents=True)
    shutil.copy(server.data_dir / "copy.db", folder / "data" / "lessor.db")
    shutil.copy(server.data_dir / "sealing-key", folder / "data")
    restored = ServerProcess()
    await restored.start(folder, settings)
    return restored
