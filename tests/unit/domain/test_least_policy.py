"""Checks the least policy against the calls that are really made."""

from __future__ import annotations

import json
from dataclasses import replace

from lessor_server.adapters.aws.requests import REQUESTS
from lessor_server.domain import least_policy, policy
from lessor_server.domain.least_policy import Holder
from lessor_server.domain.sts import AssumeRoleWithWebIdentity

OWN = "arn:aws-cn:iam::123456789012:user/team/lessor"
HOLDER = Holder("aws-cn:123456789012", "0123456789abcdef", OWN)
DOCUMENT = least_policy.document(least_policy.grants(HOLDER))


def statements(document: object = DOCUMENT) -> dict[str, tuple[set[str], str | list[str]]]:
    """Return each statement's actions and resources by its Sid."""
    listed = json.loads(json.dumps(document))["Statement"]
    return {one["Sid"]: (set(one["Action"]), one["Resource"]) for one in listed}


def test_every_call_that_is_sent_is_allowed() -> None:
    """No call exists whose action the policy leaves out, unless AWS asks for no permission."""
    needed = {
        f"{request.service}:{''.join(part.title() for part in request.method.split('_'))}"
        for kind, request in REQUESTS.items()
        if kind is not AssumeRoleWithWebIdentity  # signed by nobody
    }
    spelled = {"Mfa": "MFA", "Ssh": "SSH"}
    for plain, name in spelled.items():
        needed = {action.replace(plain, name) for action in needed}
    granted = {action for actions, _ in statements().values() for action in actions}
    assert needed - set(least_policy.WITHOUT_PERMISSION) <= granted


def test_a_root_that_is_no_user_needs_no_key_and_no_tokens() -> None:
    """What only a user's own keys can do is left out of the policy of a role."""
    found = statements(least_policy.document(least_policy.grants(Holder("aws:123456789012", "x" * 16))))
    assert {"LessorUsers", "LessorGroups", "LessorReads", "LessorRoles"} == set(found)
    assert statements()["LessorOwnKey"] == (
        {f"iam:{verb}AccessKey" for verb in ("Create", "Update", "Delete")}
        | {"iam:ListAccessKeys", "iam:GetUser"},
        OWN,
    )


def test_roles_are_those_that_the_mount_s_roles_assume() -> None:
    """Other accounts' roles are in, once a role names them; until then it is the account's own."""
    arns = ("arn:aws:iam::111111111111:role/hub", "arn:aws:iam::222222222222:role/team-*")
    found = statements(least_policy.document(least_policy.grants(replace(HOLDER, role_arns=arns))))
    assert found["LessorRoles"][1] == list(arns)
    assert statements()["LessorRoles"][1] == "arn:aws-cn:iam::123456789012:role/*"


def test_users_are_touched_below_the_instance_s_path_only() -> None:
    """What changes users is allowed on this installation's path, in the account's own partition."""
    actions, resource = statements()["LessorUsers"]
    assert resource == "arn:aws-cn:iam::123456789012:user/lessor/0123456789abcdef/*"
    assert "iam:CreateUser" in actions
    everywhere, star = statements()["LessorReads"]
    assert star == "*"
    assert all(action.startswith(("iam:List", "iam:Get", "iam:Simulate")) for action in everywhere)


def test_the_policy_is_one_that_aws_takes() -> None:
    """It keeps the rules that Lessor holds its roles' policies to."""
    assert policy.violations(DOCUMENT) == []
    assert len(policy.canonical(DOCUMENT)) < 6144
