"""Checks of every RPC that it tells all faults of a request in one answer, and stops at none of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from lessor_server.app import SERVICES
from lessor_server.domain.errors import Invalid
from tests.support.engine_world import world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

UNSERVED = {"SystemService.RotateSealingKey"}
NAN = Struct(fields={"Version": Value(number_value=math.nan)})
UNREADABLE, TOO_LONG = Duration(nanos=1), "x" * 1001
ARN = "arn:aws:iam::aws:policy/P"
WRONG: dict[str, Any] = {
    # By name, wherever it stands.
    "mount": "a/b",
    "name": "a b",
    "role": "a b",
    "lease_id": "no-id",
    "prefix": "../",
    "page_token": "no/token!",
    "page_size": -1,
    "state": 99,
    "credential_type": 99,
    "max_users": -1,
    "max_leases": -1,
    "live_keys": 7,
    "max_retries": -1,
    "description": "x" * 1001,
    "reason": TOO_LONG,
    "path": TOO_LONG,
    "instance": "none",
    "request_id": "none",
    "role_arn": "none",
    "role_session_name": "a b",
    "mfa_code": "none",
    "session_policy": NAN,
    "policy_document": NAN,
    "role_arns": ["none"],
    "policy_arns": [ARN, ARN],
    "iam_groups": ["a b"],
    "iam_tags": {"aws:x": "y"},
    "session_tags": {"aws:x": "y"},
    "transitive_tag_keys": ["none"],
    "source_identity": "{{none}}",
    "external_id": "a b",
    "user_path": "none",
    "permissions_boundary_arn": "none",
    "mfa_serial_number": "a b",
    "access_key": "short",
    "secret_key": "a b",
    "region": "the moon",
    "sts_region": "the moon",
    "iam_endpoint": "none",
    "sts_endpoint": "none",
    "sts_fallback_endpoints": ["none"],
    "sts_fallback_regions": ["the moon"],
    "username_template": "{{none}}",
    "assume_chain": [{"role_arn": "none"}],
    "identity_token_file": "none",
    "rotation_schedule": "none",
    "username": "a b",
    "update_mask": FieldMask(paths=["none"]),
}
RIGHT_WHATEVER_IT_IS = {
    "etag",  # compared with what there is
    "account",  # output only
    "access_key of StaticRole",
    "identity_token_audience",  # any text, once there is a file
}


@dataclass(frozen=True)
class Case:
    """One request, and the fields in which it is wrong."""

    method: str
    request: Message
    wrong: set[str]


def fill(message: Message, path: str = "") -> set[str]:
    """Make every field of a message wrong; return their paths, the fields that hold others left out."""
    wrong = set()
    for field in message.DESCRIPTOR.fields:
        name = field.name
        if field.type == FieldDescriptor.TYPE_BOOL or name == "update_mask":
            continue
        kind = field.message_type.full_name if field.message_type else ""
        if name in RIGHT_WHATEVER_IT_IS or f"{name} of {message.DESCRIPTOR.name}" in RIGHT_WHATEVER_IT_IS:
            continue
        if kind == "google.protobuf.Duration":
            getattr(message, name).CopyFrom(UNREADABLE)
        elif kind in ("lessor.v1.Role", "lessor.v1.RootConfig", "lessor.v1.StaticRole"):
            wrong |= fill(getattr(message, name), f"{path}{name}.")
            continue
        elif kind == "google.protobuf.Timestamp":
            continue  # output only
        else:
            message.MergeFrom(type(message)(**{name: WRONG[name]}))
        wrong.add(path + name)
    return wrong


def cases() -> Iterator[Case]:
    """Yield a request to every method, all of it wrong."""
    for module in (config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                request: Message = getattr(module, method.input_type.name)()
                wrong = fill(request)
                yield Case(f"{service.name}.{method.name}", request, wrong)


CASES = {case.method: case for case in cases()}


async def faults(s: Served, method: str, request: Message) -> list[str]:
    """Return the fields of the violations that a method answers with."""
    with pytest.raises(Invalid) as told:
        await s(method, request)
    return [violation.field for violation in told.value.violations]


def top(field: str) -> str:
    """Return the part of a path that names a field of the request, or of what it wants written."""
    parts = field.partition("[")[0].split(".")
    return ".".join(parts[: 2 if parts[0] in ("config", "static_role") or field.startswith("role.") else 1])


def test_every_method_has_its_case() -> None:
    """No RPC of the services is left out of the table."""
    assert set(CASES) == {f"{one.name}.{method.name}" for one in SERVICES for method in one.methods}
    faultless = {name for name, case in CASES.items() if not case.wrong}
    none_asked = {f"SystemService.{name}" for name in ("GetInfo", "WhoAmI", "ResumeExpiry")}
    assert faultless == {*none_asked, *UNSERVED}


@pytest.mark.parametrize("method", [name for name in CASES if CASES[name].wrong])
@virtual
async def test_every_fault_of_a_request_is_told_at_once(method: str) -> None:
    """Where every field is wrong there is a violation for each, and for nothing else."""
    async with world() as w:
        told = {top(field) for field in await faults(Served(w), method, CASES[method].request)}
    assert told == CASES[method].wrong


MASKED = [name for name, case in CASES.items() if "update_mask" in case.request.DESCRIPTOR.fields_by_name]


@pytest.mark.parametrize("method", MASKED)
@virtual
async def test_what_a_mask_changes_is_told_with_the_mask_s_own_faults(method: str) -> None:
    """A path that is none, a span that is none and what breaks a rule come together, of what there is."""
    wrong = {
        "ConfigService.TuneMount": {"update_mask", "default_lease_ttl", "max_users"},
        "ConfigService.SetRoot": {"update_mask", "config.rotation_period", "config.region"},
        "RoleService.PutRole": {"update_mask", "role.max_ttl", "role.max_leases"},
        "RoleService.CheckRole": {"update_mask", "role.max_ttl", "role.max_leases"},
    }[method]
    request: Any = type(CASES[method].request)()
    request.CopyFrom(CASES[method].request)
    request.mount = "aws"
    if hasattr(request, "role"):
        request.role.name = "app"
    paths = [path.rpartition(".")[2] for path in wrong - {"update_mask"}]
    request.update_mask.CopyFrom(FieldMask(paths=["none", *paths, "name"]))
    async with world() as w:
        s = Served(w)
        told = await faults(s, method, request)
        assert (set(told), told.count("update_mask")) == (wrong, 2)
        request.mount = "a/b"
        unknown = await faults(s, method, request)
    # Without what there is its rules can't be applied; what can't be read is told all the same.
    assert {"mount", "update_mask"} <= set(unknown) <= {"mount", *wrong}


@virtual
async def test_a_type_that_is_none_hides_only_what_hangs_on_the_type() -> None:
    """Beside an unknown type all is told that would be wrong by every type, a bad mount too."""
    role = role_pb2.Role(name="a b", max_leases=-1, iam_groups=["a b"], default_ttl=UNREADABLE)
    request = role_pb2.PutRoleRequest(mount="a/b", role=role)
    async with world() as w:
        told = await faults(Served(w), "RoleService.PutRole", request)
    wanted = {"mount", "role.credential_type", "role.name", "role.max_leases", "role.iam_groups[0]"}
    assert set(told) == {*wanted, "role.default_ttl"}
    assert len(told) == len(set(told))


@pytest.mark.parametrize(
    ("method", "wanting", "missing"),
    [
        ("ConfigService.SetRoot", config_pb2.SetRootRequest(mount="a/b"), "config"),
        ("RoleService.PutRole", role_pb2.PutRoleRequest(mount="a/b"), "role"),
        ("RoleService.CheckRole", role_pb2.CheckRoleRequest(mount="a/b"), "role"),
        ("RoleService.PutStaticRole", role_pb2.PutStaticRoleRequest(mount="a/b"), "static_role"),
    ],
)
@virtual
async def test_what_is_missing_is_told_with_the_rest(method: str, wanting: Message, missing: str) -> None:
    """A request without what it wants written says so beside its other faults, and no more than that."""
    async with world() as w:
        assert await faults(Served(w), method, wanting) == ["mount", missing]


@virtual
async def test_what_cannot_be_read_is_one_fault_and_not_missing_besides() -> None:
    """A period that is none, and a policy with a number that is none, are told once each."""
    period = role_pb2.StaticRole(name="a", username="b", rotation_period=UNREADABLE)
    policy = Struct(fields={"Version": Value(number_value=math.nan)})
    kind = role_pb2.Role.FEDERATION_TOKEN
    role = role_pb2.Role(name="a", credential_type=kind, policy_document=policy)
    async with world() as w:
        told = await faults(Served(w), "RoleService.PutRole", role_pb2.PutRoleRequest(role=role))
        assert told == ["role.policy_document"]
        request = role_pb2.PutStaticRoleRequest(static_role=period)
        told = await faults(Served(w), "RoleService.PutStaticRole", request)
        assert told == ["static_role.rotation_period"]


@virtual
async def test_a_request_of_a_known_role_is_judged_as_a_whole() -> None:
    """The ttl, what does not go with the type and an overlap are told together."""
    request = creds_pb2.WatchCredentialsRequest(
        mount="aws", role="app", ttl=Duration(seconds=-5), role_arn="x", mfa_code="1"
    )
    async with world() as w:
        s = Served(w)
        assert set(await faults(s, "CredsService.WatchCredentials", request)) == {
            "ttl",
            "role_arn",
            "mfa_code",
        }
        single = creds_pb2.GenerateCredentialsRequest(
            mount="aws", role="app", ttl=Duration(seconds=-5), role_arn="x", mfa_code="1"
        )
        assert set(await faults(s, "CredsService.GenerateCredentials", single)) == {
            "ttl",
            "role_arn",
            "mfa_code",
        }
        request.ttl.seconds = 60
        request.overlap.seconds = 50
        told = await faults(s, "CredsService.WatchCredentials", request)
        assert set(told) == {"overlap", "role_arn", "mfa_code"}
