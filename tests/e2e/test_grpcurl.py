"""Checks the tutorial with grpcurl, without proto files."""

from __future__ import annotations

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.clients import POLICY, ROOT_KEY, ROOT_SECRET, connect, nothing_left, users_of
from tests.support.grpcurl import Grpcurl
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

SERVICES = ("Config", "Role", "Creds", "Lease", "System")
EXIT_BASE = 64
UNAUTHENTICATED, INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND = 16, 3, 9, 5


@pytest.fixture
def person(server: ServerProcess) -> Grpcurl:
    """Call with the root token."""
    return Grpcurl(server.address, server.token)


async def test_the_tutorial_works_from_a_shell(person: Grpcurl, aws: StandIn) -> None:
    enabled = (await person.call("ConfigService.EnableMount", default_lease_ttl="3600s")).json()["mount"]
    assert (enabled["mount"], enabled["default_lease_ttl"], enabled["state"]) == ("aws", "3600s", "ENABLED")
    config = {
        "access_key": ROOT_KEY,
        "secret_key": ROOT_SECRET,
        "region": "us-east-1",
        "iam_endpoint": aws.url,
        "sts_endpoint": aws.url,
    }
    stored = (await person.call("ConfigService.SetRoot", config=config)).json()["config"]
    assert stored["access_key"] == ROOT_KEY
    assert "secret_key" not in stored
    role = {"name": "app", "credential_type": "IAM_USER", "policy_document": POLICY}
    assert (await person.call("RoleService.PutRole", role=role)).json()["role"]["policy_document"] == POLICY
    made = (await person.call("CredsService.GenerateCredentials", role="app", ttl="900s")).json()
    assert made["lease_duration"] == "900s"
    assert {"lease_id", "lease_renewable", "expire_time", "access_key", "secret_key", "arn"} <= set(made)
    assert "security_token" not in made
    assert len(await users_of(aws, "aws")) == 1
    lease_id = made["lease_id"]
    lease = (await person.call("LeaseService.LookupLease", lease_id=lease_id)).json()["lease"]
    assert (lease["state"], lease["access_key"]) == ("ACTIVE", made["access_key"])
    renewed = (await person.call("LeaseService.RenewLease", lease_id=lease_id, increment="1200s")).json()
    assert renewed["lease_duration"] == "1200s"
    listed = (await person.call("LeaseService.ListLeases", prefix="aws/")).json()["leases"]
    assert [one["lease_id"] for one in listed] == [lease_id]
    revoked = (await person.call("LeaseService.RevokeLease", lease_id=lease_id, sync=True)).json()
    assert revoked["outcome"] == "GONE"
    await nothing_left(aws, "aws")


async def test_everything_is_listed_and_described_by_reflection(person: Grpcurl) -> None:
    listed = set((await person.list()).out.split())
    assert listed >= {f"lessor.v1.{name}Service" for name in SERVICES}
    assert "grpc.health.v1.Health" in listed
    for version in ("v1", "v1alpha"):
        name = f"grpc.reflection.{version}.ServerReflection"
        assert name in listed
        assert "ServerReflectionInfo" in (await person.describe(name)).out
    methods = (await person.list("lessor.v1.CredsService")).out.split()
    assert "lessor.v1.CredsService.GenerateCredentials" in methods
    described = await person.describe("lessor.v1.Role")
    assert "policy_document" in described.out
    assert (await person.describe("google.rpc.BadRequest")).code == 0


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_v1_and_v1alpha_of_reflection_list_the_services(server: ServerProcess, version: str) -> None:
    async with connect(server.address, "") as nobody:
        stream = nobody.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answers = [answer async for answer in stream]
    (answer,) = answers
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {f"lessor.v1.{name}Service" for name in SERVICES}
    assert names >= {f"grpc.reflection.{one}.ServerReflection" for one in ("v1", "v1alpha")}


async def test_reflection_and_health_need_no_token(server: ServerProcess) -> None:
    nobody = Grpcurl(server.address)
    assert "lessor.v1.ConfigService" in (await nobody.list()).out
    health = await nobody.call("grpc.health.v1.Health/Check")
    assert health.json() == {"status": "SERVING"}
    refused = await nobody.call("SystemService.GetInfo")
    assert refused.code == EXIT_BASE + UNAUTHENTICATED


async def test_the_details_of_an_error_are_readable(person: Grpcurl) -> None:
    """Not shown as base64."""
    role = {"name": "wrong", "credential_type": "IAM_USER", "policy_document": {"Version": "2023-11-12"}}
    await person.call("ConfigService.EnableMount", mount="other")
    bad = await person.call("RoleService.PutRole", mount="other", role=role)
    assert bad.code == EXIT_BASE + INVALID_ARGUMENT
    assert "role.policy_document.Version" in bad.err
    assert "google.rpc.BadRequest" in bad.err
    assert "INVALID_REQUEST" in bad.err
    missing = await person.call("RoleService.GetRole", mount="other", name="nobody")
    assert missing.code == EXIT_BASE + NOT_FOUND
    assert "google.rpc.ResourceInfo" in missing.err
    await person.call("RoleService.PutRole", mount="other", role={**role, "policy_document": POLICY})
    rootless = await person.call("CredsService.GenerateCredentials", mount="other", role="wrong")
    assert rootless.code == EXIT_BASE + FAILED_PRECONDITION
    assert "ROOT_NOT_SET" in rootless.err
    for answer in (bad, missing, rootless):
        assert "@value" not in answer.err
        assert "base64" not in answer.err.lower()
