"""Checks what paths, methods and headers of Vault's API are answered with, without a server."""

from __future__ import annotations

from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from lessor_server.domain.errors.base import NotFound
from lessor_server.http_edge.vault.face import TABLE
from lessor_server.http_edge.vault.routes import Verb
from lessor_server.services.effects import EFFECTS
from lessor_server.services.permissions import PUBLIC
from tests.support.vault_requests import Api, FakeCalls
from tests.support.virtual_loop import virtual

ID = "aws/creds/app/000000000000000000000000"
MADE = creds_pb2.GenerateCredentialsResponse(
    lease_id=ID,
    lease_duration=Duration(seconds=3600),
    lease_renewable=True,
    access_key="AKIA",
    secret_key="secret",
)
MOUNT = config_pb2.Mount(mount="aws", default_lease_ttl=Duration(seconds=60))


def serving(**answers: Message) -> Api:
    """Return an API whose methods answer so; their names have ``_`` instead of the dot."""
    return Api(FakeCalls({name.replace("_", "."): answer for name, answer in answers.items()}))


def test_each_row_names_methods_that_exist() -> None:
    for route in TABLE.routes:
        for verb, operation in route.operations.items():
            assert {*operation.rpcs} <= EFFECTS.keys() | PUBLIC, (route.pattern, verb)


def test_no_two_rows_have_the_same_pattern() -> None:
    patterns = [route.pattern for route in TABLE.routes]
    assert len(patterns) == len(set(patterns))


@pytest.mark.parametrize("path", ["", "kv/data/x/y", "sys/init", "sys/unseal", "aws", "sys/policies/acl/x"])
async def test_a_path_that_is_not_served_is_named_in_vaults_words(path: str) -> None:
    answer = await serving().ask("GET", path)
    assert answer.status == 404
    assert answer.body == {"errors": [f'no handler for route "{path}". route entry not found.']}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "aws/creds/app"),
        ("PATCH", "aws/roles/app"),
        ("BREW", "aws/roles/app"),
        ("GET", "aws/roles"),
        ("HEAD", "aws/creds/app"),
        ("GET", "sys/leases/lookup/aws"),
        ("GET", "aws/creds/app?scan=true"),
        ("LIST", "aws/creds/app"),
    ],
)
async def test_another_method_of_a_path_is_405_with_those_that_it_has(method: str, path: str) -> None:
    api = serving()
    answer = await api.ask(method, path)
    assert answer.status == 405
    assert answer.headers["Allow"]
    assert api.calls.asked == []


@pytest.mark.parametrize("path", ["aws/roles?list=true", "aws//roles/?list=1"])
async def test_a_get_with_list_is_a_list_and_slashes_are_folded(path: str) -> None:
    listed = role_pb2.ListRolesResponse(roles=[role_pb2.Role(name="app")])
    answer = await serving(RoleService_ListRoles=listed).ask("GET", path)
    assert answer.body["data"] == {"keys": ["app"]}


@pytest.mark.parametrize("path", [route.pattern for route in TABLE.routes])
async def test_each_path_has_a_help_text(path: str) -> None:
    answer = await serving().ask("GET", path.replace("{", "").replace("}", "").replace("...", "") + "?help=1")
    assert answer.status == 200
    assert list(answer.body) == ["help"]
    assert answer.body["help"].endswith(".")


@pytest.mark.parametrize("namespace", ["", "/", "root", "root/"])
async def test_the_root_namespace_is_served(namespace: str) -> None:
    api = serving(
        RoleService_GetRole=role_pb2.GetRoleResponse(role=role_pb2.Role(credential_type="IAM_USER"))
    )
    answer = await api.ask("GET", "aws/roles/x", None, {"X-Vault-Namespace": namespace})
    assert answer.status == 200


async def test_another_namespace_is_not_served_from_the_root() -> None:
    api = serving(CredsService_GenerateCredentials=MADE)
    answer = await api.ask("GET", "aws/creds/x", None, {"X-Vault-Namespace": "ns1/"})
    assert (answer.status, answer.body["errors"][0]) == (404, "namespace not found")
    assert api.calls.asked == []


async def test_a_wrapped_answer_is_refused_before_a_key_is_made() -> None:
    api = serving(CredsService_GenerateCredentials=MADE)
    answer = await api.ask("GET", "aws/creds/app", None, {"X-Vault-Wrap-TTL": "1m0s"})
    assert answer.status == 400
    assert "can't be wrapped" in answer.body["errors"][0]
    assert api.calls.asked == []


async def test_a_key_that_nobody_gets_is_withdrawn() -> None:
    """A request of this test has no connection."""
    api = serving(CredsService_GenerateCredentials=MADE)
    with pytest.raises((AttributeError, AssertionError)):
        await api.ask("GET", "aws/creds/app")
    assert api.withdrawn == [ID]


async def test_an_unexpected_exception_is_500_with_a_reference() -> None:
    def fail(_: Message) -> Message:
        raise RuntimeError("a secret")

    api = Api(FakeCalls({"RoleService.GetRole": fail}))
    answer = await api.ask("GET", "aws/roles/app")
    assert answer.status == 500
    assert "reference" in answer.body["errors"][0]
    assert "a secret" not in answer.body["errors"][0]
    assert len(api.reported) == 1


async def test_an_envelope_has_all_members_and_a_uuid() -> None:
    found = config_pb2.ListMountsResponse(mounts=[MOUNT])
    answer = await serving(ConfigService_ListMounts=found).ask("GET", "sys/mounts")
    assert UUID(answer.body["request_id"])
    members = {
        "request_id",
        "lease_id",
        "renewable",
        "lease_duration",
        "data",
        "wrap_info",
        "warnings",
        "auth",
    }
    assert set(answer.body) == {*members, "aws/"}
    assert answer.body["lease_duration"] == 0
    assert answer.body["data"]["aws/"] == answer.body["aws/"]
    assert answer.body["aws/"]["config"]["default_lease_ttl"] == 60


async def test_a_write_is_204_and_with_a_warning_200() -> None:
    api = serving(ConfigService_SetRoot=config_pb2.SetRootResponse())
    assert (await api.ask("POST", "aws/config/root", {"region": "x"})).status == 204
    warned = await api.ask("POST", "aws/config/root", {"region": "x", "spelling": 1})
    assert warned.status == 200
    assert warned.body["warnings"] == ["Endpoint ignored these unrecognized parameters: [spelling]"]


async def test_a_write_changes_what_is_sent_and_nothing_else() -> None:
    api = serving(ConfigService_SetRoot=config_pb2.SetRootResponse())
    await api.ask("PUT", "aws/config/root", {"region": "eu-west-1", "max_retries": -1, "role_arn": ""})
    ((_, sent),) = api.calls.asked
    assert isinstance(sent, config_pb2.SetRootRequest)
    assert set(sent.update_mask.paths) == {"region", "max_retries", "assume_chain"}
    assert not sent.config.HasField("max_retries")
    assert not sent.config.assume_chain


async def test_a_role_that_does_not_exist_is_created() -> None:
    def put(message: Message) -> Message:
        assert isinstance(message, role_pb2.PutRoleRequest)
        if message.HasField("update_mask"):
            raise NotFound("role", "aws/app")
        return role_pb2.PutRoleResponse(role=message.role)

    api = Api(FakeCalls({"RoleService.PutRole": put}))
    body = {"credential_type": "iam_user", "policy_document": "{}", "wait_usable": "15s"}
    assert (await api.ask("POST", "aws/roles/app", body)).status == 204
    (_, first), (_, second) = api.calls.asked
    assert isinstance(first, role_pb2.PutRoleRequest)
    assert isinstance(second, role_pb2.PutRoleRequest)
    assert second.role == first.role
    assert second.role.wait_usable.seconds == 15


async def test_a_revocation_waits_unless_it_says_otherwise() -> None:
    gone = lease_pb2.RevokeLeaseResponse(outcome=lease_pb2.RevokeLeaseResponse.GONE)
    api = serving(LeaseService_RevokeLease=gone)
    statuses = []
    for body in ({"lease_id": ID}, {"lease_id": ID, "sync": True}, {"lease_id": ID, "sync": False}):
        statuses.append((await api.ask("PUT", "sys/leases/revoke", body)).status)  # noqa: PERF401
    assert statuses == [204, 204, 202]
    assert [one.sync for _, one in api.calls.asked] == [True, True, False]  # type: ignore[attr-defined]


async def test_a_revocation_that_aws_has_not_done_is_503_and_goes_on() -> None:
    failed = lease_pb2.RevokeLeaseResponse(
        outcome=lease_pb2.RevokeLeaseResponse.ACCEPTED, last_error="AWS_UNAVAILABLE"
    )
    answer = await serving(LeaseService_RevokeLease=failed).ask("PUT", f"sys/leases/revoke/{ID}")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "goes on" in answer.body["errors"][0]


@virtual
async def test_an_engine_whose_leases_take_long_is_disabled_in_the_background() -> None:
    api = serving(
        ConfigService_DisableMount=config_pb2.DisableMountResponse(mount=MOUNT),
        ConfigService_ListMounts=config_pb2.ListMountsResponse(mounts=[MOUNT]),
    )
    assert (await api.ask("DELETE", "sys/mounts/aws")).status == 202


async def test_an_engine_that_is_gone_is_disabled() -> None:
    api = serving(
        ConfigService_DisableMount=config_pb2.DisableMountResponse(mount=MOUNT),
        ConfigService_ListMounts=config_pb2.ListMountsResponse(),
    )
    assert (await api.ask("DELETE", "sys/mounts/aws")).status == 204


@pytest.mark.parametrize(
    ("status", "query", "code"),
    [
        ("SERVING", "", 200),
        ("SERVING", "?sealedcode=299", 200),
        ("NOT_SERVING", "", 503),
        ("NOT_SERVING", "?sealedcode=299&uninitcode=299&standbycode=299", 299),
        ("SERVING", "?sealedcode=x", 400),
        ("SERVING", "?sealedcode=99", 400),
    ],
)
async def test_health_has_the_status_that_the_query_names(status: str, query: str, code: int) -> None:
    health = health_pb2.HealthCheckResponse(status=status)  # type: ignore[arg-type]
    api = serving(Health_Check=health)
    for method in ("GET", "HEAD"):
        assert (await api.ask(method, f"sys/health{query}")).status == code


def test_the_methods_of_reads_are_not_those_of_writes() -> None:
    """A row can't issue or change something by a GET, but for credentials, as Vault's can."""
    for route in TABLE.routes:
        operation = route.operations.get(Verb.READ)
        if operation is not None and not route.pattern.endswith(("creds/{role}", "sts/{role}")):
            changing = {rpc for rpc in operation.rpcs if EFFECTS.get(rpc, None) is not None}
            assert not {rpc for rpc in changing if EFFECTS[rpc].name in ("CHANGE", "REVOKE")}, route.pattern
