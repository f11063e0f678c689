"""Checks how roles of the STS types are stored, changed and read."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from lessor.v1 import role_pb2
from tests.support.clients import MANAGED, POLICY, Lessor, refused, struct

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Role = role_pb2.Role
ARNS = ["arn:aws:iam::123456789012:role/deploy", "arn:aws:iam::123456789012:role/ci/*"]
TAGS = {"team": "payments", "who": "{{identity.name}}"}
OF_TYPE: dict[str, dict[str, Any]] = {
    "ASSUMED_ROLE": {
        "role_arns": ARNS,
        "policy_arns": [MANAGED],
        "policy_document": struct(POLICY),
        "iam_groups": ["developers"],
        "session_tags": TAGS,
        "transitive_tag_keys": ["team"],
        "source_identity": "{{identity.name}}",
        "external_id": "an-external-id",
        "mfa_serial_number": "arn:aws:iam::123456789012:mfa/alice",
    },
    "FEDERATION_TOKEN": {
        "policy_arns": [MANAGED],
        "policy_document": struct(POLICY),
        "iam_groups": ["developers"],
        "session_tags": TAGS,
    },
    "SESSION_TOKEN": {"mfa_serial_number": "GAHT12345678"},
}
TIMES: dict[str, Any] = {
    "default_sts_ttl": Duration(seconds=900),
    "max_sts_ttl": Duration(seconds=3600),
    "max_leases": 7,
}


async def put(lessor: Lessor, mount: str, role: role_pb2.Role, *paths: str) -> role_pb2.Role:
    """Write a role, or only what the paths name, and return it as it is read back."""
    mask = FieldMask(paths=paths) if paths else None
    await lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role, update_mask=mask))
    return (await lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name=role.name))).role


@pytest.mark.parametrize("kind", OF_TYPE)
async def test_each_type_is_read_back_with_every_field(lessor: Lessor, mount: str, kind: str) -> None:
    role = Role(name="app", credential_type=kind, **OF_TYPE[kind], **TIMES)
    stored = await put(lessor, mount, role)
    assert stored.etag
    stored.etag = ""
    assert stored == role


@pytest.mark.parametrize("kind", OF_TYPE)
async def test_all_fields_of_another_type_are_refused_together(lessor: Lessor, mount: str, kind: str) -> None:
    alien = {"user_path": "/ci/", "permissions_boundary_arn": MANAGED, "iam_tags": {"a": "b"}}
    lacking = {name: value for name, value in OF_TYPE["ASSUMED_ROLE"].items() if name not in OF_TYPE[kind]}
    role = Role(name="app", credential_type=kind, **OF_TYPE[kind], **alien, **lacking)
    refusal = await refused(lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role)))
    assert {f"role.{name}" for name in (*alien, *lacking)} <= set(refusal.violations)
    listed = await lessor.roles.ListRoles(role_pb2.ListRolesRequest(mount=mount))
    assert list(listed.roles) == []


async def test_session_tags_are_replaced_as_a_whole(lessor: Lessor, mount: str) -> None:
    kind = Role.ASSUMED_ROLE
    first = Role(name="app", credential_type=kind, role_arns=ARNS, session_tags=TAGS, external_id="id-1")
    assert dict((await put(lessor, mount, first)).session_tags) == TAGS
    changed = await put(lessor, mount, Role(name="app", session_tags={"team": "search"}), "session_tags")
    assert (dict(changed.session_tags), changed.external_id) == ({"team": "search"}, "id-1")
    none = await put(lessor, mount, Role(name="app"), "session_tags")
    assert (dict(none.session_tags), none.external_id, list(none.role_arns)) == ({}, "id-1", ARNS)
    whole = await put(lessor, mount, Role(name="app", credential_type=kind, role_arns=ARNS))
    assert whole.external_id == ""
