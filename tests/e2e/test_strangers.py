"""Who is asked before what: an unknown method first, then the caller, then the parser; what comes later."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, creds_pb2, role_pb2
from tests.support.clients import POLICY, Lessor, connect, refused, root_at, struct
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
GET_INFO = "lessor.v1.SystemService/GetInfo"
SERVICES = ("", *(f"lessor.v1.{name}Service" for name in ("Config", "Role", "Creds", "Lease", "System")))
LATER_UNARY = (
    "ConfigService/RotateRoot",
    "RoleService/PutStaticRole",
    "RoleService/GetStaticRole",
    "RoleService/DeleteStaticRole",
    "RoleService/RotateStaticRole",
    "RoleService/ListStaticRoles",
    "CredsService/GetStaticCredentials",
    "SystemService/RotateSealingKey",
)
LATER_STREAMS = (
    "CredsService/WatchCredentials",
    "LeaseService/WatchLeases",
)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer the-wrong-token-of-tests"),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic the-root-token-of-tests"),),
        (("authorization", "the-root-token-of-tests"),),
        (("authorization", "Bearer the-root-token-of-tests-and-more"),),
        (("x-authorization", "Bearer the-root-token-of-tests"),),
    ],
)
@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff"])
async def test_a_stranger_learns_nothing(
    server: ServerProcess, metadata: tuple[tuple[str, str], ...], data: bytes
) -> None:
    """No token and a wrong one get the same answer, whatever the request holds, before it is parsed."""
    async with connect(server.address, "") as nobody:
        first = await refused(nobody.raw(GET_INFO))
        refusal = await refused(nobody.raw(GET_INFO, data, metadata))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert refusal == first


async def test_the_scheme_of_a_token_has_no_case(server: ServerProcess) -> None:
    """``bearer`` is ``Bearer``, as RFC 9110 says of every scheme."""
    async with connect(server.address, "") as nobody:
        metadata = (("authorization", f"bearer {server.token}"),)
        assert await nobody.raw(GET_INFO, b"", metadata)


@pytest.mark.parametrize("token", ["", "the-root-token-of-tests", "wrong"])
@pytest.mark.parametrize("method", ["lessor.v1.ConfigService/NoSuchCall", "no.such.Service/Call"])
async def test_an_unknown_method_is_unimplemented_for_everyone(
    server: ServerProcess, method: str, token: str
) -> None:
    """A method that nobody serves needs no token to say so."""
    async with connect(server.address, token) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.raw(method)
    assert caught.value.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", LATER_UNARY)
async def test_a_call_of_a_later_version_says_that_it_is_not_served(lessor: Lessor, method: str) -> None:
    """Each RPC of the contract that this version lacks is UNIMPLEMENTED and names itself."""
    refusal = await refused(lessor.raw(f"lessor.v1.{method}"))
    assert (refusal.code, refusal.reason) == (Code.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert method.partition("/")[2] in refusal.message


@pytest.mark.parametrize("method", LATER_STREAMS)
async def test_a_stream_of_a_later_version_says_that_it_is_not_served(lessor: Lessor, method: str) -> None:
    """So does each stream, when its first answer is asked for."""
    refusal = await refused(lessor.raw_stream(f"lessor.v1.{method}"))
    assert (refusal.code, refusal.reason) == (Code.UNIMPLEMENTED, "UNIMPLEMENTED")


@pytest.mark.parametrize("method", [*LATER_UNARY, *LATER_STREAMS])
async def test_a_stranger_is_refused_before_that(server: ServerProcess, method: str) -> None:
    """What a later version serves is guarded already."""
    async with connect(server.address, "") as nobody:
        send = nobody.raw if method in LATER_UNARY else nobody.raw_stream
        refusal = await refused(send(f"lessor.v1.{method}"))
    assert refusal.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("role_arn", {"role_arn": "arn:aws:iam::123456789012:role/r"}),
        ("role_session_name", {"role_session_name": "me"}),
        ("mfa_code", {"mfa_code": "123456"}),
        ("session_policy", {"session_policy": struct(POLICY)}),
    ],
)
async def test_a_field_of_a_later_version_is_refused_by_name(
    lessor: Lessor, mount: str, field: str, fields: dict[str, Any]
) -> None:
    """What is not served is not ignored: the caller hears which field to leave out."""
    await lessor.put_role(mount)
    request = creds_pb2.GenerateCredentialsRequest(mount=mount, role="app", **fields)
    refusal = await refused(lessor.creds.GenerateCredentials(request))
    assert refusal.code is Code.UNIMPLEMENTED
    assert field in refusal.message


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        (
            "assume_chain",
            {"assume_chain": [config_pb2.AssumeStep(role_arn="arn:aws:iam::123456789012:role/r")]},
        ),
        ("identity_token_file", {"identity_token_file": "/run/token"}),
        ("identity_token_audience", {"identity_token_audience": "sts.amazonaws.com"}),
        ("rotation_period", {"rotation_period": Duration(seconds=86400)}),
        ("rotation_schedule", {"rotation_schedule": "0 3 * * *"}),
        ("rotation_window", {"rotation_window": Duration(seconds=3600)}),
    ],
)
async def test_a_root_of_a_later_version_is_refused_by_name(
    lessor: Lessor, aws: StandIn, mount: str, field: str, fields: dict[str, Any]
) -> None:
    """So is what only a later version can do with a root, and the root stays as it was."""
    before = await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount))
    request = config_pb2.SetRootRequest(mount=mount, config=root_at(aws.url, **fields))
    refusal = await refused(lessor.config.SetRoot(request))
    assert refusal.code is Code.UNIMPLEMENTED
    assert field in refusal.message
    assert await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount)) == before


async def test_a_role_of_another_type_is_kept_and_not_served(lessor: Lessor, mount: str) -> None:
    """An STS role can be written; asking for its credentials names the type that this version lacks."""
    arns = ["arn:aws:iam::123456789012:role/deploy"]
    role = role_pb2.Role(name="sts", credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=arns)
    await lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role))
    refusal = await refused(lessor.generate(mount, "sts", ttl=900))
    assert refusal.code is Code.UNIMPLEMENTED
    assert "credential_type ASSUMED_ROLE" in refusal.message


@pytest.mark.parametrize("service", SERVICES)
async def test_health_needs_no_token(server: ServerProcess, service: str) -> None:
    """The server as a whole and each service are SERVING, for anyone who asks."""
    async with connect(server.address, "") as nobody:
        assert await nobody.health(service) == health_pb2.HealthCheckResponse.SERVING


async def test_get_info_tells_what_runs_here(lessor: Lessor) -> None:
    """Version, store, schema and instance are told, and a loopback listener needs no warning."""
    info = await lessor.info()
    assert (info.store_kind, info.dev_mode, list(info.warnings)) == ("sqlite", False, [])
    assert info.version
    assert info.schema_version >= 1
    assert len(info.instance_id) >= 16
