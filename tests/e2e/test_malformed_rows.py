"""Checks that a server with malformed rows starts, serves all other rows, and reports them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, lease_pb2, role_pb2
from tests.support.clients import Lessor, connect, lease_of, refused, until, users_of
from tests.support.malformed import Case, cases, damage, loosen
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
LEASES = 60
SERVING = health_pb2.HealthCheckResponse.SERVING
NEEDED = ("id", "mount", "account", "user_name", "state", "credential_type")


@asynccontextmanager
async def again(server: ServerProcess, folder: Path, aws: StandIn) -> AsyncIterator[Lessor]:
    """Start a server again on its data, as it is now."""
    await server.start(folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url})
    async with connect(server.address, server.token) as lessor:
        yield lessor


async def test_an_unreadable_role_fails_only_its_own_calls(tmp_path: Path, aws: StandIn) -> None:
    async with serving(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.enable("rows", aws.url)
            for name in ("broken", "sound"):
                await lessor.put_role("rows", name)
        await server.stop()
        assert damage(server.data_dir, Case("roles", "body", "'{bad'", "bad JSON"), "name = 'broken'")
        async with again(server, tmp_path, aws) as lessor:
            for _ in range(3):
                refusal = await refused(lessor.generate("rows", "broken", seconds=5))
                assert (refusal.code, refusal.reason) == (Code.INTERNAL, "ROW_UNREADABLE")
                reference = refusal.message.partition("reference ")[2][:12]
                assert reference in {str(line.get("reference")) for line in server.log()}
            assert (await lessor.generate("rows", "sound")).lease_id
            listed = await lessor.roles.ListRoles(role_pb2.ListRolesRequest(mount="rows"))
            assert [role.name for role in listed.roles] == ["sound"]
            unreadable = [line for line in server.log() if line["event"] == "unreadable_row"]
            assert [(line["table"], line["key"]) for line in unreadable] == [("roles", "rows/broken")]
            assert any("roles rows/broken" in warning for warning in (await lessor.info()).warnings)
            assert await lessor.health() == SERVING
            await lessor.roles.DeleteRole(role_pb2.DeleteRoleRequest(mount="rows", name="broken"))
            await lessor.put_role("rows", "broken")
            assert (await lessor.generate("rows", "broken")).lease_id
            assert not any("rows/broken" in warning for warning in (await lessor.info()).warnings)


async def test_a_server_revokes_leases_whatever_other_columns_are_malformed(
    tmp_path: Path, aws: StandIn
) -> None:
    async with serving(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server:
        async with connect(server.address, server.token) as lessor:
            for mount in ("good", "bad"):
                await lessor.enable(mount, aws.url)
                await lessor.put_role(mount)
            leases = [(await lessor.generate("good")).lease_id for _ in range(LEASES)]
        await server.stop()
        loosen(server.data_dir)
        assert damage(server.data_dir, Case("leases", "expires_us", "1", "long ago"))
        assert damage(server.data_dir, Case("leases", "due_us", "1", "long ago"))
        of_leases = [case for case in cases(server.data_dir) if case.table == "leases"]
        wanted = [case for case in of_leases if case.what != "null"][:: len(of_leases) // LEASES + 1]
        damaged = {
            lease_id: case
            for lease_id, case in zip(leases, wanted, strict=False)
            if damage(server.data_dir, case, f"id = '{lease_id}'")
        }
        assert LEASES > len(damaged) > LEASES / 2
        for table, column in (("roles", "body"), ("roots", "sealed"), ("mounts", "max_lease_ttl_us")):
            key = "name" if table == "mounts" else "mount"
            assert damage(server.data_dir, Case(table, column, "x'00ff'", "bytes"), f"{key} = 'bad'")
        async with again(server, tmp_path, aws) as lessor:
            assert (await lessor.generate("good")).lease_id
            revocable = {one for one in leases if one not in damaged or damaged[one].column not in NEEDED}

            async def left() -> set[str]:
                ids = {lease_of(user) for user in await users_of(aws, "good")}
                return {f"{one}: {damaged.get(one)}" for one in ids & revocable}

            assert await until(left, lambda some: not some, seconds=30) == set()
            answers = [lessor.generate("bad"), lessor.roles.ListRoles(role_pb2.ListRolesRequest(mount="bad"))]
            for answer in answers:
                assert (await refused(answer)).code is Code.INTERNAL
            mounts = await lessor.config.ListMounts(config_pb2.ListMountsRequest())
            assert [mount.mount for mount in mounts.mounts] == ["good"]
            await lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix="good/"))
            await asyncio.sleep(1)
            assert await lessor.health() == SERVING
        assert await server.stop() == 0
