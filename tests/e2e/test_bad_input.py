"""Checks that invalid requests are refused before any effect, with all problems of a phase and the fixes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2 as details

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from lessor_server.services.parsing import MAX_REQUEST_BYTES
from tests.support.clients import NOBODY_THERE, POLICY, Lessor, refused, root_at, struct
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
BAD_NAMES = ["..", ".", "a/b", "-x", "x-", "x.", "x" * 65, "ü", "a b", "a\nb", "%", "*"]
BAD_SPANS = {
    "negative": Duration(seconds=-1),
    "a hair below zero": Duration(nanos=-1),
    "a hair above zero": Duration(nanos=1),
    "half a second": Duration(nanos=500_000_000),
    "no whole seconds": Duration(seconds=2, nanos=500_000_000),
    "two signs": Duration(seconds=1, nanos=-1),
    "no nanos": Duration(seconds=1, nanos=2_000_000_000),
    "a century": Duration(seconds=100 * 366 * 86400),
    "past all bounds": Duration(seconds=2**62),
    "past them below": Duration(seconds=-(2**62)),
}


def document(**members: object) -> dict[str, object]:
    """Return the tests' policy with some members changed."""
    return {**POLICY, **members}


def statement(**members: object) -> dict[str, object]:
    """Return a policy whose one statement has some members changed."""
    return document(Statement=[{"Effect": "Allow", "Action": "s3:*", "Resource": "*", **members}])


async def test_an_unknown_policy_version_is_named_with_both_known_ones(lessor: Lessor, mount: str) -> None:
    refusal = await refused(lessor.put_role(mount, policy_document=struct(document(Version="2023-11-12"))))
    assert refusal.code is Code.INVALID_ARGUMENT
    violation = refusal.violations["role.policy_document.Version"]
    assert "2012-10-17" in violation
    assert "2008-10-17" in violation
    assert "policy_document.Version" in refusal.message
    assert (await refused(lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name="app")))).code is (
        Code.NOT_FOUND
    )


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({}, ""),
        ({"Version": "2012-10-17"}, "Statement"),
        (document(Statement=[]), "Statement"),
        (document(Statement="Allow"), "Statement"),
        (document(Versoin="2012-10-17"), "Versoin"),
        (statement(Effect="allow"), "Statement[0].Effect"),
        (statement(Action=[]), "Statement[0].Action"),
        (statement(Action="everything"), "Statement[0].Action"),
        (statement(NotAction="s3:*"), "Statement[0].Action"),
        (statement(Resource="bucket"), "Statement[0].Resource"),
        (statement(Principal="*"), "Statement[0].Principal"),
        (statement(Sid="no blanks"), "Statement[0].Sid"),
        (statement(Condition={"Equals": {"aws:x": "y"}}), "Statement[0].Condition.Equals"),
        (statement(Condition={"Bool": {"aws:x": 1.5}}), 'Statement[0].Condition.Bool["aws:x"]'),
        (statement(Resource="arn:aws:s3:::\N{SNOWMAN}"), "Statement[0].Resource"),
        (statement(Resource=["arn:aws:s3:::" + "x" * 2048]), ""),
    ],
)
async def test_a_policy_that_iam_would_refuse_is_refused(
    lessor: Lessor, mount: str, policy: dict[str, object], field: str
) -> None:
    refusal = await refused(lessor.put_role(mount, policy_document=struct(policy)))
    assert refusal.code is Code.INVALID_ARGUMENT
    path = "role.policy_document" + (f".{field}" if field else "")
    assert path in refusal.violations


@pytest.mark.parametrize("name", ["", *BAD_NAMES])
async def test_an_invalid_role_name_is_refused_by_every_method(lessor: Lessor, mount: str, name: str) -> None:
    calls: dict[str, Any] = {
        "role.name": lessor.put_role(mount, name),
        "name": lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name=name)),
        "role": lessor.generate(mount, name),
    }
    for field, call in calls.items():
        refusal = await refused(call)
        assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, [field])
    refusal = await refused(lessor.roles.DeleteRole(role_pb2.DeleteRoleRequest(mount=mount, name=name)))
    assert list(refusal.violations) == ["name"]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_an_invalid_mount_name_is_refused(lessor: Lessor, name: str) -> None:
    """Only an empty one means the mount ``aws``."""
    for call in (
        lessor.config.EnableMount(config_pb2.EnableMountRequest(mount=name)),
        lessor.config.GetRoot(config_pb2.GetRootRequest(mount=name)),
        lessor.generate(name),
    ):
        refusal = await refused(call)
        assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, ["mount"])


async def test_a_missing_mount_role_or_lease_is_named(lessor: Lessor, mount: str) -> None:
    lease_id = f"{mount}/creds/app/{'0' * 24}"
    calls: dict[tuple[str, str], Any] = {
        ("mount", "nowhere"): lessor.generate("nowhere"),
        ("role", f"{mount}/nobody"): lessor.generate(mount, "nobody"),
        ("lease", lease_id): lessor.lookup(lease_id),
    }
    for (kind, name), call in calls.items():
        refusal = await refused(call)
        info = refusal.detail(details.ResourceInfo)
        assert (refusal.code, info.resource_type, info.resource_name) == (Code.NOT_FOUND, kind, name)
    for call in (
        lessor.config.GetRoot(config_pb2.GetRootRequest(mount="nowhere")),
        lessor.config.TuneMount(config_pb2.TuneMountRequest(mount="nowhere")),
        lessor.config.SetRoot(
            config_pb2.SetRootRequest(mount="nowhere", config=root_at("https://iam.amazonaws.com"))
        ),
        lessor.put_role("nowhere"),
        lessor.roles.ListRoles(role_pb2.ListRolesRequest(mount="nowhere")),
        lessor.roles.DeleteRole(role_pb2.DeleteRoleRequest(mount=mount, name="nobody")),
        lessor.renew(lease_id),
    ):
        assert (await refused(call)).code is Code.NOT_FOUND


async def test_a_mount_that_exists_is_not_enabled_again(lessor: Lessor, mount: str) -> None:
    refusal = await refused(lessor.config.EnableMount(config_pb2.EnableMountRequest(mount=mount)))
    assert (refusal.code, refusal.reason) == (Code.ALREADY_EXISTS, "ALREADY_EXISTS")
    info = refusal.detail(details.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("mount", mount)


async def test_without_a_root_nothing_is_issued(lessor: Lessor) -> None:
    await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="bare"))
    await lessor.put_role("bare")
    for call in (lessor.generate("bare"), lessor.config.GetRoot(config_pb2.GetRootRequest(mount="bare"))):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_NOT_SET")


@pytest.mark.parametrize("span", BAD_SPANS)
async def test_an_invalid_duration_is_refused_by_every_method(lessor: Lessor, mount: str, span: str) -> None:
    value = BAD_SPANS[span]
    await lessor.put_role(mount)
    lease_id = (await lessor.generate(mount)).lease_id
    calls: dict[str, Any] = {
        "ttl": lessor.creds.GenerateCredentials(
            creds_pb2.GenerateCredentialsRequest(mount=mount, role="app", ttl=value)
        ),
        "increment": lessor.leases.RenewLease(
            lease_pb2.RenewLeaseRequest(lease_id=lease_id, increment=value)
        ),
        "role.default_ttl": lessor.put_role(mount, default_ttl=value),
        "max_lease_ttl": lessor.config.EnableMount(
            config_pb2.EnableMountRequest(mount="new", max_lease_ttl=value)
        ),
    }
    for field, call in calls.items():
        refusal = await refused(call)
        assert refusal.code is Code.INVALID_ARGUMENT
        assert field in refusal.violations


async def test_at_most_twenty_problems_are_returned(lessor: Lessor, mount: str) -> None:
    """The twentieth says how many are left out."""
    wrong = [f"no-arn-{number}" for number in range(20)]
    tags = {f"aws:{number}": "x" for number in range(10)}
    refusal = await refused(lessor.put_role(mount, policy_arns=wrong, iam_tags=tags))
    violations = refusal.detail(details.BadRequest).field_violations
    assert len(violations) == 20
    assert "11 more" in violations[-1].description
    assert {violation.field for violation in violations[:-1]} <= {f"role.policy_arns[{n}]" for n in range(20)}
    assert refusal.detail(details.BadRequest).ByteSize() <= 4096 + 128


async def test_problems_of_different_fields_are_returned_together(lessor: Lessor, mount: str) -> None:
    refusal = await refused(
        lessor.put_role(mount, role_arns=["arn:aws:iam::123456789012:role/r"], user_path="x", max_leases=-1)
    )
    assert set(refusal.violations) == {"role.role_arns", "role.user_path", "role.max_leases"}
    first = refusal.detail(details.BadRequest).field_violations[0]
    assert refusal.message.startswith(first.field)


async def test_all_problems_of_a_request_for_credentials_are_returned_together(lessor: Lessor) -> None:
    request = creds_pb2.GenerateCredentialsRequest(
        mount="a/b",
        role="x y",
        ttl=Duration(nanos=1),
        wait_usable=Duration(seconds=-1),
        request_id="one",
        reason="x" * 257,
    )
    refusal = await refused(lessor.creds.GenerateCredentials(request))
    assert refusal.code is Code.INVALID_ARGUMENT
    assert set(refusal.violations) == {"mount", "role", "ttl", "wait_usable", "request_id", "reason"}


async def test_a_mount_is_checked_for_its_shape_then_for_the_rules(lessor: Lessor) -> None:
    request = config_pb2.EnableMountRequest(
        mount="a/b", max_lease_ttl=Duration(seconds=5), default_lease_ttl=Duration(nanos=1), max_users=-1
    )
    refusal = await refused(lessor.config.EnableMount(request))
    assert set(refusal.violations) == {"mount", "default_lease_ttl"}
    request.mount = "new"
    request.default_lease_ttl.FromSeconds(6)
    refusal = await refused(lessor.config.EnableMount(request))
    assert set(refusal.violations) == {"default_lease_ttl", "max_users"}


@pytest.mark.parametrize("kind", [0, 99])
async def test_an_unknown_type_is_refused(lessor: Lessor, mount: str, kind: int) -> None:
    refusal = await refused(lessor.put_role(mount, credential_type=kind))
    assert "role.credential_type" in refusal.violations


async def test_a_caller_s_text_is_cut_and_kept_on_one_line(lessor: Lessor, mount: str) -> None:
    refusal = await refused(lessor.generate(mount, "x\n" * 4000))
    assert len(refusal.message) < 300
    assert "\n" not in refusal.message


async def test_a_request_over_its_maximum_is_refused(lessor: Lessor, mount: str) -> None:
    huge = struct(statement(Resource=["arn:aws:s3:::" + "x" * MAX_REQUEST_BYTES]))
    refusal = await refused(lessor.put_role(mount, policy_document=huge))
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "bytes" in refusal.message


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe"])
async def test_malformed_bytes_are_refused(lessor: Lessor, data: bytes) -> None:
    assert (await refused(lessor.raw("lessor.v1.RoleService/GetRole", data))).code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("data", [b"\xf8\x3f\x01", b"\x12\x04\xf8\x3f\x01\x0a"])
async def test_an_unknown_field_is_refused(lessor: Lessor, data: bytes) -> None:
    assert (await refused(lessor.raw("lessor.v1.RoleService/PutRole", data))).code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("iam_endpoint", {"iam_endpoint": "http://169.254.169.254"}),
        ("iam_endpoint", {"iam_endpoint": "https://iam.amazonaws.com.example.org"}),
        ("sts_endpoint", {"sts_endpoint": "http://127.0.0.1:2"}),
        ("access_key", {"access_key": "short"}),
        ("secret_key", {"secret_key": "a secret with blanks"}),
        ("secret_key", {"secret_key": ""}),
        ("region", {"region": "the moon"}),
        ("max_retries", {"max_retries": -1}),
        ("username_template", {"username_template": "{{nonsense}}"}),
    ],
)
async def test_an_invalid_root_is_refused(
    lessor: Lessor, mount: str, aws: StandIn, field: str, fields: dict[str, Any]
) -> None:
    config = config_pb2.RootConfig(access_key="A" * 20, secret_key="s" * 40)
    config.MergeFrom(root_at(aws.url))
    for name, value in fields.items():
        setattr(config, name, value)
    refusal = await refused(lessor.config.SetRoot(config_pb2.SetRootRequest(mount=mount, config=config)))
    assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, [f"config.{field}"])
    assert "a secret with" not in str(refusal)


async def test_an_unreachable_endpoint_is_unavailable(lessor: Lessor) -> None:
    """The root is stored, since that needs no call."""
    await lessor.enable("void", NOBODY_THERE)
    await lessor.put_role("void")
    for call in (lessor.generate("void"), lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount="void"))):
        async with asyncio.timeout(30):
            refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "AWS_UNAVAILABLE")


@pytest.mark.parametrize("mask", ["nonsense", "name", "policy_document.Version", ""])
async def test_a_mask_that_names_no_changeable_field_is_refused(
    lessor: Lessor, mount: str, mask: str
) -> None:
    await lessor.put_role(mount)
    role = role_pb2.Role(name="app", credential_type=role_pb2.Role.IAM_USER, max_leases=7)
    request = role_pb2.PutRoleRequest(mount=mount, role=role, update_mask=FieldMask(paths=[mask]))
    refusal = await refused(lessor.roles.PutRole(request))
    assert "update_mask" in refusal.violations
    stored = await lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name="app"))
    assert stored.role.max_leases == 0
