"""Checks that every RPC returns all problems of shape together, and then all problems of rules."""

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
from lessor_server.domain.errors.base import Invalid
from tests.support.engine_world import world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

NAN = Struct(fields={"Version": Value(number_value=math.nan)})
NO_POLICY = Struct(fields={"Version": Value(string_value="2020-01-01")})
UNREADABLE, NEGATIVE, TOO_LONG = Duration(nanos=1), Duration(seconds=-1), "x" * 1001
ARN = "arn:aws:iam::aws:policy/P"
SHAPE: dict[str, Any] = {
    # Values of the wrong shape, by the name of their field.
    "mount": "a/b",
    "name": "a b",
    "role": "a b",
    "lease_id": "no-id",
    "prefix": "../",
    "page_token": "no/token!",
    "page_size": -1,
    "state": 99,
    "credential_type": 99,
    "reason": TOO_LONG,
    "owner": TOO_LONG,
    "path": TOO_LONG,
    "instance": "none",
    "request_id": "none",
    "session_policy": NAN,
    "policy_document": NAN,
}
RIGHT: dict[str, Any] = {
    # Values of the right shape, where a request can't do without.
    "mount": "aws",
    "name": "app",
    "role": "app",
    "credential_type": role_pb2.Role.IAM_USER,
}
REQUIRED_CAPABILITY: dict[str, Any] = {
    # Values of the right shape that break a rule.
    "max_users": -1,
    "max_leases": -1,
    "live_keys": 7,
    "max_retries": -1,
    "description": TOO_LONG,
    "role_arn": "none",
    "role_session_name": "a b",
    "mfa_code": "none",
    "session_policy": NO_POLICY,
    "policy_document": NO_POLICY,
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
}
RIGHT_WHATEVER_IT_IS = {
    "etag",  # compared with what there is
    "account",  # output only
    "access_key of StaticRole",
    "identity_token_audience",  # any text, once there is a file
    "update_mask",  # says which fields are checked
}


@dataclass(frozen=True)
class Case:
    """One request, and the fields in which it is wrong."""

    method: str
    request: Message
    wrong: set[str]


def fill(message: Message, path: str = "", *, shape: bool) -> set[str]:
    """Make each field wrong, in its ``shape`` or by a rule alone; return the paths of those problems.

    A field whose shape can't be wrong breaks a rule beside those whose shape is.
    """
    wrong = set()
    for field in message.DESCRIPTOR.fields:
        name = field.name
        kind = field.message_type.full_name if field.message_type else ""
        if field.type == FieldDescriptor.TYPE_BOOL or kind == "google.protobuf.Timestamp":
            continue
        if name in RIGHT_WHATEVER_IT_IS or f"{name} of {message.DESCRIPTOR.name}" in RIGHT_WHATEVER_IT_IS:
            continue
        if kind in ("lessor.v1.Role", "lessor.v1.RootConfig", "lessor.v1.StaticRole"):
            wrong |= fill(getattr(message, name), f"{path}{name}.", shape=shape)
            continue
        unshaped, unruly = SHAPE.get(name), REQUIRED_CAPABILITY.get(name)
        if kind == "google.protobuf.Duration":
            unshaped, unruly = UNREADABLE, None if name == "wait_usable" else NEGATIVE
        assert unshaped is not None or unruly is not None, name
        if (unshaped if shape else unruly) is not None:
            wrong.add(path + name)
        value = (unshaped or unruly) if shape else (unruly or RIGHT.get(name))
        if value is not None:
            message.MergeFrom(type(message)(**{name: value}))
    return wrong


def cases(*, shape: bool) -> Iterator[Case]:
    """Yield a request to every method, wrong in its shape or by the rules alone."""
    for module in (config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                request: Message = getattr(module, method.input_type.name)()
                wrong = fill(request, shape=shape)
                yield Case(f"{service.name}.{method.name}", request, wrong)


CASES = {case.method: case for case in cases(shape=True)}
RULED = {case.method: case for case in cases(shape=False) if case.wrong}


async def faults(s: Served, method: str, request: Message) -> list[str]:
    """Return the fields of the violations that a method answers with."""
    with pytest.raises(Invalid) as raised:
        await s(method, request)
    return [violation.field for violation in raised.value.violations]


def top(field: str) -> str:
    """Return the part of a path that names a field of the request, or of what it wants written."""
    parts = field.partition("[")[0].split(".")
    return ".".join(parts[: 2 if parts[0] in ("config", "static_role") or field.startswith("role.") else 1])


def test_every_method_is_in_the_table() -> None:
    assert set(CASES) == {f"{one.name}.{method.name}" for one in SERVICES for method in one.methods}
    faultless = {name for name, case in CASES.items() if not case.wrong}
    names = (
        *("GetInfo", "WhoAmI", "CreateSignInLink"),
        *("ResumeExpiry", "ReloadAccess", "RotateSealingKey"),
    )
    assert faultless == {f"SystemService.{name}" for name in names}


@pytest.mark.parametrize("method", [name for name in CASES if CASES[name].wrong])
@virtual
async def test_all_problems_of_shape_come_together_and_no_others(method: str) -> None:
    async with world() as w:
        found = {top(field) for field in await faults(Served(w), method, CASES[method].request)}
    assert found == CASES[method].wrong


@pytest.mark.parametrize("method", RULED)
@virtual
async def test_all_problems_of_rules_come_together(method: str) -> None:
    request: Any = type(RULED[method].request)()
    request.CopyFrom(RULED[method].request)
    async with world() as w:
        if "lease_id" in request.DESCRIPTOR.fields_by_name:
            request.lease_id = (await w.issue()).lease.id
        found = {top(field) for field in await faults(Served(w), method, request)}
    assert found == RULED[method].wrong


def test_the_requests_that_have_rules_are_those_that_write_issue_or_renew() -> None:
    writes = {f"ConfigService.{name}" for name in ("EnableMount", "TuneMount", "SetRoot", "SetLeaseDefaults")}
    writes |= {f"RoleService.{name}" for name in ("PutRole", "CheckRole", "PutStaticRole")}
    issues = {"CredsService.GenerateCredentials", "CredsService.WatchCredentials"}
    assert set(RULED) == {*writes, *issues, "LeaseService.RenewLease"}


MASKED = {
    # By method: two of the fields that a mask can name.
    "ConfigService.TuneMount": ("default_lease_ttl", "max_users"),
    "ConfigService.SetRoot": ("config.rotation_period", "config.region"),
    "RoleService.PutRole": ("role.max_ttl", "role.max_leases"),
    "RoleService.CheckRole": ("role.max_ttl", "role.max_leases"),
}


@pytest.mark.parametrize("method", MASKED)
@virtual
async def test_only_what_a_mask_names_is_checked_in_either_phase(method: str) -> None:
    span, number = MASKED[method]
    paths = [field.rpartition(".")[2] for field in (span, number)]
    async with world() as w:
        s = Served(w)
        request: Any = type(CASES[method].request)()
        request.CopyFrom(CASES[method].request)
        request.update_mask.CopyFrom(FieldMask(paths=["none", *paths, "name"]))
        names = {"mount", "role.name"} if hasattr(request, "role") else {"mount"}
        found = await faults(s, method, request)
        assert sorted(found) == sorted([*names, "update_mask", "update_mask", span])
        request.CopyFrom(RULED[method].request)
        request.update_mask.CopyFrom(FieldMask(paths=paths))
        assert sorted(await faults(s, method, request)) == sorted([span, number])


def test_every_request_with_a_mask_is_checked() -> None:
    has_mask = {name for name, one in CASES.items() if "update_mask" in one.request.DESCRIPTOR.fields_by_name}
    assert has_mask == set(MASKED)


@virtual
async def test_an_etag_does_not_hide_an_invalid_name() -> None:
    role = role_pb2.Role(name="x\n" * 2000, credential_type=role_pb2.Role.IAM_USER, etag="any")
    async with world() as w:
        with pytest.raises(Invalid) as raised:
            await Served(w)("RoleService.PutRole", role_pb2.PutRoleRequest(role=role))
    assert [one.field for one in raised.value.violations] == ["role.name"]
    assert len(raised.value.message) < 300


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
async def test_a_missing_message_is_reported_with_the_other_problems(
    method: str, wanting: Message, missing: str
) -> None:
    async with world() as w:
        assert await faults(Served(w), method, wanting) == ["mount", missing]


@virtual
async def test_all_problems_with_a_known_role_are_reported_together() -> None:
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
        answer = await faults(s, "CredsService.WatchCredentials", request)
        assert set(answer) == {"overlap", "role_arn", "mfa_code"}
