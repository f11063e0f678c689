"""Checks the findings of the linter with a real server."""

from __future__ import annotations

import pytest

from lessor.v1 import role_pb2
from tests.support.clients import Lessor, struct

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


def policy(action: str) -> dict[str, object]:
    """Return a policy that allows something everywhere."""
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


async def test_findings_are_warnings_of_put_and_check(lessor: Lessor, mount: str) -> None:
    put = await lessor.put_role(mount, policy_document=struct(policy("s3:GetObjet")))
    assert [one for one in put.warnings if "did you mean s3:GetObject?" in one]
    role = role_pb2.Role(
        name="app", credential_type=role_pb2.Role.IAM_USER, policy_document=struct(policy("sns:Publish"))
    )
    checked = await lessor.roles.CheckRole(role_pb2.CheckRoleRequest(mount=mount, role=role))
    assert [one for one in checked.warnings if "allows sns:Publish on every resource" in one]


async def test_a_server_says_which_linter_it_has(lessor: Lessor) -> None:
    assert (await lessor.info()).linter.startswith("policy_sentry ")
