"""Checks the least policy of a root against the calls that Lessor makes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from lessor_server.adapters.aws.gateway import OPERATIONS
from lessor_server.domain.aws import least_policy
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.least_policy import MAX_RESOURCES, Holder, RoleUse
from lessor_server.domain.policy import policy
from lessor_server.domain.role import CredentialType, Role
from tests.support import builders

ACCOUNT = "aws-cn:123456789012"
OWN = "arn:aws-cn:iam::123456789012:user/team/lessor"
ANYBODY = "arn:aws-cn:iam::123456789012:user/somebody"
HOLDER = Holder(ACCOUNT, "0123456789abcdef", OWN, makes_tokens=True, static_arns=(ANYBODY,))
DOCUMENT = least_policy.document(least_policy.grants(HOLDER))
HUB, TEAM = "arn:aws:iam::111111111111:role/hub", "arn:aws:iam::222222222222:role/team-*"
PART_OF_ANOTHER = {"iam:TagUser", "sts:TagSession", "sts:SetSourceIdentity"}
"""What AWS asks for beside an action's own permission: for tags, and for a source identity."""


def statements(document: object = DOCUMENT) -> dict[str, tuple[set[str], str | list[str]]]:
    """Return each statement's actions and resources by its Sid."""
    listed = json.loads(json.dumps(document))["Statement"]
    return {one["Sid"]: (set(one["Action"]), one["Resource"]) for one in listed}


def named(*arns: str) -> Role:
    """Return a role that assumes these."""
    return builders.assumed("", role_arns=arns)


def use(*roles: Role) -> RoleUse:
    """Return what roles need together."""
    found = RoleUse()
    for role in roles:
        found.add(role)
    return found


def needed(holder: Holder) -> dict[str, tuple[set[str], str | list[str]]]:
    """Return the statements for a holder."""
    return statements(least_policy.document(least_policy.grants(holder)))


def sent() -> set[str]:
    """Return the action of every call that the domain knows and the root signs."""
    # A token or the key that is proven speaks for itself: the root doesn't sign these.
    by_name = {kind.__name__: request for kind, request in OPERATIONS.items()}
    calls = _calls(Call) - {"AssumeRoleWithWebIdentity", "VerifyKeyOnIam", "VerifyKey"}
    return {f"{by_name[call].service}:{by_name[call].action}" for call in calls}


def _calls(kind: type[Call[Any]]) -> set[str]:
    """Return the names of the calls that the domain's modules know."""
    found: set[str] = set()
    for one in kind.__subclasses__():
        found |= {one.__name__, *_calls(one)} if one.__module__.startswith("lessor_server.domain") else set()
    return found


def test_every_call_of_the_domain_is_allowed() -> None:
    granted = {action for actions, _ in statements().values() for action in actions}
    assert len(sent()) >= 37
    assert sent() - set(least_policy.WITHOUT_PERMISSION) <= granted


def test_every_allowed_action_is_needed_by_a_call() -> None:
    granted = {action for actions, _ in statements().values() for action in actions}
    assert granted - PART_OF_ANOTHER <= sent()


def test_a_root_that_is_a_role_needs_no_actions_on_its_own_keys() -> None:
    found = needed(Holder("aws:123456789012", "x" * 16))
    on_roles = {"LessorRoles", "LessorRoleTags", "LessorRoleIdentities"}
    assert {"LessorUsers", "LessorGroups", "LessorReads", *on_roles} == set(found)
    assert statements()["LessorOwnKey"] == (
        {
            f"iam:{verb}"
            for verb in ("CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "ListAccessKeys")
        },
        OWN,
    )


def test_a_mount_without_roles_gets_actions_for_all_types() -> None:
    own = "arn:aws-cn:iam::123456789012:role/*"
    assert statements()["LessorRoles"] == ({"sts:AssumeRole"}, own)
    assert statements()["LessorRoleTags"] == ({"sts:TagSession"}, own)
    assert statements()["LessorTokens"][0] == {"sts:GetFederationToken", "sts:TagSession"}


def test_the_policy_names_the_roles_that_the_mount_s_roles_assume() -> None:
    roles = (
        builders.role("app"),
        builders.assumed(HUB, "one", session_tags=(("team", "a"),)),
        builders.assumed(TEAM, "two", source_identity="me"),
    )
    found = needed(replace(HOLDER, use=use(*roles)))
    assert found["LessorRoles"] == ({"sts:AssumeRole"}, [HUB, TEAM])
    assert found["LessorRoleTags"] == ({"sts:TagSession"}, HUB)
    assert found["LessorRoleIdentities"] == ({"sts:SetSourceIdentity"}, TEAM)
    assert "LessorTokens" not in found


def test_a_statement_names_no_more_roles_than_fit_into_a_policy() -> None:
    arns = [f"arn:aws:iam::123456789012:role/{number:04d}" for number in range(MAX_RESOURCES + 1)]
    full = use(named(*arns[:150]), named(*arns[100:MAX_RESOURCES]))
    assert not full.cut
    assert needed(replace(HOLDER, use=full))["LessorRoles"][1] == arns[:-1]
    full.add(named(arns[-1]))
    assert full.cut
    assert needed(replace(HOLDER, use=full))["LessorRoles"][1] == arns[:-1]


def test_token_actions_are_allowed_only_for_roles_of_that_type() -> None:
    """Users of earlier roles can still be revoked."""
    role = builders.role(credential_type=CredentialType.FEDERATION_TOKEN)
    found = needed(replace(HOLDER, use=use(role), static_arns=()))
    assert found["LessorTokens"] == ({"sts:GetFederationToken"}, "*")
    assert set(found) == {"LessorUsers", "LessorGroups", "LessorReads", "LessorTokens", "LessorOwnKey"}
    tagged = needed(replace(HOLDER, use=use(replace(role, session_tags=(("team", "a"),)))))
    assert tagged["LessorTokens"][0] == {"sts:GetFederationToken", "sts:TagSession"}


def test_static_roles_need_their_users_or_the_first_role_of_their_chain() -> None:
    found = needed(replace(HOLDER, static_hops=(HUB,)))
    assert found["LessorStaticUsers"] == ({"iam:GetUser", *found["LessorOwnKey"][0]}, ANYBODY)
    assert found["LessorStaticRoles"] == ({"sts:AssumeRole"}, HUB)
    path_unknown = least_policy.static_user_arns(ACCOUNT, "somebody")
    assert path_unknown == (ANYBODY, "arn:aws-cn:iam::123456789012:user/*/somebody")


def test_user_actions_are_allowed_only_below_the_instance_s_path() -> None:
    actions, resource = statements()["LessorUsers"]
    assert resource == "arn:aws-cn:iam::123456789012:user/lessor/0123456789abcdef/*"
    assert "iam:CreateUser" in actions
    everywhere, star = statements()["LessorReads"]
    assert star == "*"
    assert all(action.startswith(("iam:List", "iam:Get", "iam:Simulate")) for action in everywhere)


def test_the_policy_is_valid_and_fits_an_inline_policy() -> None:
    document = least_policy.document(least_policy.grants(replace(HOLDER, static_arns=())))
    assert policy.violations(document) == []
    assert len(policy.canonical(document)) <= 2048
