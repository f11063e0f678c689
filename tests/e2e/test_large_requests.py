"""Checks that requests that once blocked the server for seconds are refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from lessor.v1 import config_pb2, creds_pb2, role_pb2
from tests.support.clients import Lessor, refused, root_at, struct
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
OPEN = "{{" + " " * 4_000
STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


def role(**fields: Any) -> role_pb2.PutRoleRequest:
    """Return a request to store a role with these fields."""
    kind = role_pb2.Role.ASSUMED_ROLE
    return role_pb2.PutRoleRequest(role=role_pb2.Role(name="app", credential_type=kind, **fields))


def root(**fields: Any) -> config_pb2.SetRootRequest:
    """Return a request to store a root with these fields."""
    config = config_pb2.RootConfig(access_key="A" * 20, secret_key="s" * 40, **fields)
    return config_pb2.SetRootRequest(config=config)


def static(**fields: Any) -> role_pb2.PutStaticRoleRequest:
    """Return a request to store a static role with these fields."""
    return role_pb2.PutStaticRoleRequest(
        static_role=role_pb2.StaticRole(name="app", username="app", **fields)
    )


REQUESTS: dict[str, Message] = {
    "role.source_identity": role(source_identity=OPEN),
    'role.session_tags["k"]': role(session_tags={"k": OPEN}),
    "role.policy_document": role(
        policy_document=struct({"Version": "2012-10-17", "Statement": {**STATEMENT, "Resource": OPEN}})
    ),
    "role.policy_document ": role(policy_document=struct({"Statement": [STATEMENT] * 1_500})),
    "role.iam_groups": role(iam_groups=[f"g{index}" for index in range(12_000)]),
    "role.iam_groups ": role(iam_groups=["g"] * 1_000),
    "config.username_template": root(username_template=OPEN),
    "config.rotation_schedule": root(rotation_schedule="0," * 50_000 + "0 3 * * *"),
    "config.sts_endpoint": root(sts_endpoint=f"https://vpce-{'a' * 80_000}.sts.us-east-1.vpce.amazonaws.com"),
    "config.sts_endpoint ": root(sts_endpoint=f"https://vpce-{'a' * 300}.sts.us-east-1.vpce.amazonaws.com"),
    "static_role.rotation_schedule": static(rotation_schedule="0 3 * * *" + " " * 100_000),
    "request_id": creds_pb2.GenerateCredentialsRequest(role="app", request_id="0" * 3_000),
    "update_mask": role_pb2.PutRoleRequest(
        role=role_pb2.Role(name="app"), update_mask=FieldMask(paths=["policy_arns"] * 2_000)
    ),
    "update_mask ": config_pb2.TuneMountRequest(update_mask=FieldMask(paths=["description"] * 101)),
}


@pytest.mark.parametrize("field", REQUESTS)
async def test_a_request_that_is_too_large_is_refused(lessor: Lessor, mount: str, field: str) -> None:
    request: Any = REQUESTS[field]
    request.mount = mount
    methods: dict[type[Message], Any] = {
        role_pb2.PutRoleRequest: lessor.roles.PutRole,
        role_pb2.PutStaticRoleRequest: lessor.roles.PutStaticRole,
        config_pb2.SetRootRequest: lessor.config.SetRoot,
        config_pb2.TuneMountRequest: lessor.config.TuneMount,
        creds_pb2.GenerateCredentialsRequest: lessor.creds.GenerateCredentials,
    }
    refusal = await refused(methods[type(request)](request))
    assert refusal.code is Code.INVALID_ARGUMENT
    assert field.strip() in refusal.violations
    assert len(refusal.message) < 500
    await lessor.put_role(mount)


async def test_a_mask_that_names_a_field_thrice_stores_it_once(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    chain = [config_pb2.AssumeStep(role_arn="arn:aws:iam::123456789012:role/hub")]
    config = config_pb2.RootConfig(assume_chain=chain)
    mask = FieldMask(paths=["assume_chain"] * 3)
    request = config_pb2.SetRootRequest(mount=mount, config=config, update_mask=mask)
    await lessor.config.SetRoot(request)
    stored = await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount))
    assert list(stored.config.assume_chain) == chain
    whole = config_pb2.RootConfig(access_key="A" * 20, secret_key="s" * 40)
    whole.MergeFrom(root_at(aws.url))
    await lessor.config.SetRoot(config_pb2.SetRootRequest(mount=mount, config=whole))


async def test_an_unknown_field_of_a_hop_is_refused(lessor: Lessor, mount: str) -> None:
    hop = b"\x0a\x01x\xa0\x06\x01"
    config = b"\x5a\x00\x5a" + bytes([len(hop)]) + hop
    refusal = await refused(
        lessor.raw("lessor.v1.ConfigService/SetRoot", b"\x12" + bytes([len(config)]) + config)
    )
    assert (refusal.code, list(refusal.violations)) == (
        Code.INVALID_ARGUMENT,
        ["config.assume_chain[1].#100"],
    )
