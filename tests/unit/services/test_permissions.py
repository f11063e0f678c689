"""Checks which capabilities on which paths each request needs, as docs/access.md lists them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from lessor_server.domain.errors.base import Invalid
from lessor_server.services.permissions import PERMISSIONS, mount_in, path_of

LEASE = "aws/creds/app/000000000000000000000000"
C, R, CR, L, S = config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2

NEEDS: list[tuple[str, Message, list[str]]] = [
    ("ConfigService.EnableMount", C.EnableMountRequest(mount="m"), ["create,sudo sys/mounts/m"]),
    ("ConfigService.DisableMount", C.DisableMountRequest(), ["delete,sudo sys/mounts/aws"]),
    (
        "ConfigService.DisableMount",
        C.DisableMountRequest(mount="m", force=True),
        ["delete,sudo sys/mounts/m", "update,sudo sys/leases/revoke-force/m/"],
    ),
    ("ConfigService.ListMounts", C.ListMountsRequest(), ["list sys/mounts/"]),
    ("ConfigService.TuneMount", C.TuneMountRequest(mount="m"), ["update,sudo sys/mounts/m/tune"]),
    ("ConfigService.GetRoot", C.GetRootRequest(mount="m"), ["read m/config/root"]),
    ("ConfigService.RotateRoot", C.RotateRootRequest(mount="m"), ["update m/config/rotate-root"]),
    ("ConfigService.CheckRoot", C.CheckRootRequest(mount="m"), ["read m/config/root"]),
    ("ConfigService.SetLeaseDefaults", C.SetLeaseDefaultsRequest(mount="m"), ["update m/config/lease"]),
    ("ConfigService.GetLeaseDefaults", C.GetLeaseDefaultsRequest(), ["read aws/config/lease"]),
    ("RoleService.PutRole", R.PutRoleRequest(role=R.Role(name="r")), ["update|create aws/roles/r"]),
    ("RoleService.CheckRole", R.CheckRoleRequest(role=R.Role(name="r")), ["update|create aws/roles/r"]),
    ("RoleService.GetRole", R.GetRoleRequest(mount="m", name="r"), ["read m/roles/r"]),
    ("RoleService.ListRoles", R.ListRolesRequest(mount="m"), ["list m/roles/"]),
    ("RoleService.DeleteRole", R.DeleteRoleRequest(name="r"), ["delete aws/roles/r"]),
    (
        "RoleService.DeleteRole",
        R.DeleteRoleRequest(mount="m", name="r", revoke_leases=True),
        ["delete m/roles/r", "update,sudo sys/leases/revoke-prefix/m/creds/r/"],
    ),
    (
        "RoleService.PutStaticRole",
        R.PutStaticRoleRequest(static_role=R.StaticRole(name="r")),
        ["update|create aws/static-roles/r"],
    ),
    ("RoleService.GetStaticRole", R.GetStaticRoleRequest(name="r"), ["read aws/static-roles/r"]),
    ("RoleService.DeleteStaticRole", R.DeleteStaticRoleRequest(name="r"), ["delete aws/static-roles/r"]),
    ("RoleService.RotateStaticRole", R.RotateStaticRoleRequest(name="r"), ["update aws/rotate-role/r"]),
    ("RoleService.ResumeStaticRole", R.ResumeStaticRoleRequest(name="r"), ["update aws/static-roles/r"]),
    ("RoleService.ListUsableRoles", R.ListUsableRolesRequest(), []),
    ("RoleService.ListStaticRoles", R.ListStaticRolesRequest(), ["list aws/static-roles/"]),
    ("CredsService.GenerateCredentials", CR.GenerateCredentialsRequest(role="r"), ["read aws/creds/r"]),
    ("CredsService.WatchCredentials", CR.WatchCredentialsRequest(mount="m", role="r"), ["read m/creds/r"]),
    (
        "CredsService.GetStaticCredentials",
        CR.GetStaticCredentialsRequest(role="r"),
        ["read aws/static-creds/r"],
    ),
    (
        "LeaseService.LookupLease",
        L.LookupLeaseRequest(lease_id=LEASE),
        [f"read sys/leases/lookup/{LEASE} or own"],
    ),
    (
        "LeaseService.RenewLease",
        L.RenewLeaseRequest(lease_id=LEASE),
        [f"update sys/leases/renew/{LEASE} or own"],
    ),
    (
        "LeaseService.RevokeLease",
        L.RevokeLeaseRequest(lease_id=LEASE),
        [f"update sys/leases/revoke/{LEASE} or own"],
    ),
    ("LeaseService.ListLeases", L.ListLeasesRequest(prefix="aws/"), ["list sys/leases/lookup/aws/ or own"]),
    ("LeaseService.CountLeases", L.CountLeasesRequest(prefix="aws/"), ["list sys/leases/lookup/aws/ or own"]),
    (
        "LeaseService.WatchLeases",
        L.WatchLeasesRequest(prefix="aws/creds/app/"),
        ["list sys/leases/lookup/aws/creds/app/ or own"],
    ),
    (
        "LeaseService.RevokePrefix",
        L.RevokePrefixRequest(prefix="aws/creds/"),
        ["update,sudo sys/leases/revoke-prefix/aws/creds/"],
    ),
    (
        "LeaseService.AbandonLeases",
        L.AbandonLeasesRequest(prefix="aws/"),
        ["update,sudo sys/leases/revoke-force/aws/"],
    ),
    (
        "LeaseService.AbandonLeases",
        L.AbandonLeasesRequest(lease_id=LEASE),
        [f"update,sudo sys/leases/revoke-force/{LEASE}"],
    ),
    (
        "LeaseService.AbandonLeases",
        L.AbandonLeasesRequest(lease_id=LEASE, prefix="aws/"),
        [f"update,sudo sys/leases/revoke-force/{LEASE}", "update,sudo sys/leases/revoke-force/aws/"],
    ),
    ("LeaseService.Reconcile", L.ReconcileRequest(mount="m"), ["read sys/leases/reconcile/m"]),
    ("LeaseService.Reconcile", L.ReconcileRequest(apply=True), ["update,sudo sys/leases/reconcile/aws"]),
    ("SystemService.GetInfo", S.GetInfoRequest(), []),
    ("SystemService.WhoAmI", S.WhoAmIRequest(), []),
    ("SystemService.CreateSignInLink", S.CreateSignInLinkRequest(), []),
    ("SystemService.Backup", S.BackupRequest(), ["update,sudo sys/backup"]),
    ("SystemService.HoldExpiry", S.HoldExpiryRequest(), ["update,sudo sys/expiry/hold"]),
    ("SystemService.ResumeExpiry", S.ResumeExpiryRequest(), ["update,sudo sys/expiry/resume"]),
    ("SystemService.RotateSealingKey", S.RotateSealingKeyRequest(), ["update,sudo sys/sealing/rotate"]),
    ("SystemService.ReloadAccess", S.ReloadAccessRequest(), ["update,sudo sys/access/reload"]),
]

ROOT = "update m/config/root"
SUDO = "update,sudo m/config/root"
ROOTS: dict[str, tuple[C.RootConfig, list[str] | None, bool]] = {
    "keys": (C.RootConfig(access_key="A", secret_key="s", region="eu-west-1"), None, False),
    "no keys": (C.RootConfig(region="eu-west-1"), None, True),
    "nothing": (C.RootConfig(), None, True),
    "an endpoint": (C.RootConfig(access_key="A", iam_endpoint="https://x"), None, True),
    "an endpoint of STS": (C.RootConfig(access_key="A", sts_endpoint="https://x"), None, True),
    "other endpoints": (C.RootConfig(access_key="A", sts_fallback_endpoints=["https://x"]), None, True),
    "a token file": (C.RootConfig(access_key="A", identity_token_file="/t"), None, True),
    "a chain": (C.RootConfig(access_key="A", assume_chain=[C.AssumeStep(role_arn="x")]), None, False),
    "a masked region": (C.RootConfig(region="eu-west-1"), ["region"], False),
    "a masked key": (C.RootConfig(access_key="A", secret_key="s"), ["access_key", "secret_key"], False),
    "a masked removal of the key": (C.RootConfig(), ["access_key", "secret_key"], True),
    "a masked removal of an endpoint": (C.RootConfig(), ["iam_endpoint"], True),
    "an endpoint that the mask leaves out": (C.RootConfig(iam_endpoint="https://x"), ["region"], False),
}


def needs_of(method: str, request: Message) -> list[str]:
    """Return the needs of a request in short form."""
    found = []
    for need in PERMISSIONS[method]:
        if need.when(request):
            wanted = ",".join(one.value for one in need.capabilities)
            other = f"|{need.instead.value}" if need.instead else ""
            own = " or own" if need.for_others else ""
            found.append(f"{wanted}{other} {path_of(need.path, request)}{own}")
    return found


@pytest.mark.parametrize(("method", "request_", "needs"), NEEDS)
def test_a_request_needs_these_capabilities(method: str, request_: Message, needs: list[str]) -> None:
    assert needs_of(method, request_) == needs


def test_each_method_has_a_case() -> None:
    assert {method for method, _, _ in NEEDS} | {"ConfigService.SetRoot"} == set(PERMISSIONS)


@pytest.mark.parametrize("case", ROOTS)
def test_a_root_that_uses_the_server_s_secrets_or_sends_keys_elsewhere_needs_sudo(case: str) -> None:
    config, mask, sudo = ROOTS[case]
    request = C.SetRootRequest(mount="m", config=config)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    assert needs_of("ConfigService.SetRoot", request) == ([SUDO, ROOT] if sudo else [ROOT])


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("RoleService.GetRole", R.GetRoleRequest(mount="a/b", name="../x"), ["mount", "name"]),
        ("RoleService.PutRole", R.PutRoleRequest(role=R.Role(name="a b")), ["role.name"]),
        ("RoleService.PutRole", R.PutRoleRequest(), ["role.name"]),
        ("CredsService.GenerateCredentials", CR.GenerateCredentialsRequest(role="r/../s"), ["role"]),
        ("CredsService.GenerateCredentials", CR.GenerateCredentialsRequest(role="R%2f"), ["role"]),
        ("CredsService.GenerateCredentials", CR.GenerateCredentialsRequest(role="\u0440eader"), ["role"]),
        ("LeaseService.LookupLease", L.LookupLeaseRequest(lease_id="aws/creds/x"), ["lease_id"]),
        ("LeaseService.ListLeases", L.ListLeasesRequest(prefix=""), ["prefix"]),
        ("LeaseService.ListLeases", L.ListLeasesRequest(prefix="aws/../"), ["prefix"]),
        ("LeaseService.RevokePrefix", L.RevokePrefixRequest(prefix="*"), ["prefix"]),
    ],
)
def test_names_of_the_wrong_shape_are_all_reported(method: str, request_: Message, fields: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        path_of(PERMISSIONS[method][0].path, request_)
    assert [violation.field for violation in caught.value.violations] == fields


@pytest.mark.parametrize(
    ("request_", "mount"),
    [
        (R.GetRoleRequest(name="r"), "aws"),
        (R.GetRoleRequest(mount="m", name="r"), "m"),
        (L.LookupLeaseRequest(lease_id=LEASE), "aws"),
        (L.ListLeasesRequest(prefix="m/creds/"), "m"),
        (L.AbandonLeasesRequest(prefix="m/"), "m"),
        (S.WhoAmIRequest(), ""),
        (C.ListMountsRequest(), ""),
    ],
)
def test_the_mount_of_a_request_is_found(request_: Any, mount: str) -> None:
    assert mount_in(request_) == mount
