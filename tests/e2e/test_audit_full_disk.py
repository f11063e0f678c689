"""Checks a real server whose audit file lies on a disk of 64 KiB that is full for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.support.audited_server import audited
from tests.support.clients import Lessor, refused, until, users_of
from tests.support.small_disk import small_disk
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(name="disk")
def disk_of_the_audit(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        yield disk


async def issue_into(leases: list[str], lessor: Lessor) -> None:
    """Issue until the server refuses."""
    while True:
        leases.append((await lessor.generate("aws")).lease_id)


async def test_a_full_disk_stops_issues_and_no_revocation_and_the_file_verifies_after_it(
    tmp_path: Path, disk: Path, aws: StandIn
) -> None:
    """Nobody gets a credential without a record, and what waited is written once there is room."""
    file, filler = disk / "audit.log", disk / "filler"
    async with audited(tmp_path, aws, LESSOR_AUDIT_FILE=str(file)) as server, server.connect() as lessor:
        server.file = file
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        filler.write_bytes(bytes(32 << 10))
        leases: list[str] = []
        assert (await refused(issue_into(leases, lessor))).code is grpc.StatusCode.UNAVAILABLE
        assert leases
        assert await lessor.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await refused(lessor.generate("aws"))).reason == "AUDIT_UNAVAILABLE"
        await until(lambda: users_of(aws, "aws"), lambda users: len(users) == len(leases))
        await lessor.revoke(leases[0])
        await until(lambda: users_of(aws, "aws"), lambda users: len(users) == len(leases) - 1)
        filler.unlink()
        await until(lessor.health, lambda status: status == health_pb2.HealthCheckResponse.SERVING)
        await lessor.generate("aws")
        recorded = {one.get("lease_id") for one in server.records(kind="response", status="OK")}
        assert set(leases) <= recorded
        code, text = server.verify()
        assert code == 0, text
