"""Checks the order in which a call is checked: method, caller, message."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.support.clients import Lessor, connect, refused
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
GET_INFO = "lessor.v1.SystemService/GetInfo"
SERVICES = ("", *(f"lessor.v1.{name}Service" for name in ("Config", "Role", "Creds", "Lease", "System")))
STREAMS = ("CredsService/WatchCredentials", "LeaseService/WatchLeases", "LeaseService/RevokePrefix")


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
        (("authorization", "Bearer the-root-token-of-tests"),) * 2,
        (("authorization", "Bearer the-root-token-of-tests"), ("authorization", "Bearer another")),
    ],
)
@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff"])
async def test_the_error_of_an_unknown_caller_depends_on_its_credential_only(
    server: ServerProcess, metadata: tuple[tuple[str, str], ...], data: bytes
) -> None:
    """It says what is wrong with the credential, but not the credential."""
    async with connect(server.address, "") as nobody:
        refusal = await refused(nobody.raw(GET_INFO, data, metadata))
        other = await refused(nobody.raw("lessor.v1.RoleService/PutRole", b"", metadata))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "of-tests" not in str(refusal)
    assert refusal == other


async def test_the_scheme_of_a_token_is_case_insensitive(server: ServerProcess) -> None:
    """RFC 9110."""
    async with connect(server.address, "") as nobody:
        metadata = (("authorization", f"bearer {server.token}"),)
        assert await nobody.raw(GET_INFO, b"", metadata)


@pytest.mark.parametrize("token", ["", "the-root-token-of-tests", "wrong"])
@pytest.mark.parametrize("method", ["lessor.v1.ConfigService/NoSuchCall", "no.such.Service/Call"])
async def test_an_unknown_method_is_unimplemented_without_a_token(
    server: ServerProcess, method: str, token: str
) -> None:
    async with connect(server.address, token) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.raw(method)
    assert caught.value.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_needs_a_token(server: ServerProcess, method: str) -> None:
    async with connect(server.address, "") as nobody:
        refusal = await refused(nobody.raw_stream(f"lessor.v1.{method}"))
    assert refusal.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("service", SERVICES)
async def test_health_needs_no_token(server: ServerProcess, service: str) -> None:
    async with connect(server.address, "") as nobody:
        assert await nobody.health(service) == health_pb2.HealthCheckResponse.SERVING


async def test_get_info_has_version_store_schema_and_instance(lessor: Lessor) -> None:
    info = await lessor.info()
    assert (info.store_kind, info.dev_mode) == ("sqlite", False)
    assert ["there is no audit" in warning for warning in info.warnings] == [True]
    assert info.version
    assert info.schema_version >= 1
    assert len(info.instance_id) >= 16
