"""The content of groups and managed policies, and the actions that read them (API pages of their names)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.support.iam_actions import Action, Params, field_of
from tests.support.iam_rules import Result, check_document, check_name, check_policy_arn, missing

if TYPE_CHECKING:
    from tests.support.iam_account import Account


@dataclass(slots=True)
class GroupPolicies:
    """A group's inline policies by name, and the ARNs of its managed ones."""

    inline: dict[str, str] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)


def of_group(iam: Account, name: str) -> GroupPolicies:
    """Return a group's policies, or NoSuchEntity."""
    iam.get_group(name)
    return iam.group_policies.setdefault(name.casefold(), GroupPolicies())


def put_group_policy(iam: Account, group: str, name: str, document: str) -> None:
    """Add or replace a group's inline policy."""
    check_name(name, "policyName", 128)
    check_document(document)
    of_group(iam, group).inline[name] = document


def attach_group_policy(iam: Account, group: str, arn: str) -> None:
    """Attach a managed policy to a group; a repetition has no effect."""
    check_policy_arn(arn)
    policies = of_group(iam, group)
    if not iam.knows_policy(arn):
        raise missing(f"Policy {arn} does not exist or is not attachable.")
    if arn not in policies.attached:
        policies.attached.append(arn)


def _list_group_policies(iam: Account, p: Params) -> Result:
    names = sorted(of_group(iam, p.need("GroupName")).inline, key=str.casefold)
    return p.page("PolicyNames", names)


def _get_group_policy(iam: Account, p: Params) -> Result:
    group, name = p.need("GroupName"), p.need("PolicyName")
    document = of_group(iam, group).inline.get(name)
    if document is None:
        raise missing(f"The group policy with name {name} cannot be found.")
    # "Policies returned by this operation are URL-encoded compliant with RFC 3986" (API_GetGroupPolicy).
    return {"GroupName": group, "PolicyName": name, "PolicyDocument": quote(document, safe="")}


def _list_attached_group_policies(iam: Account, p: Params) -> Result:
    arns = sorted(of_group(iam, p.need("GroupName")).attached, key=str.casefold)
    attached = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in arns]
    return p.page("AttachedPolicies", attached, field_of("PolicyArn"))


def _get_group(iam: Account, p: Params) -> Result:
    group = iam.get_group(p.need("GroupName"))
    name = str(group["GroupName"])
    members = sorted((one for one in iam.users.values() if name in one.groups), key=lambda one: one.name)
    listed = p.page("Users", [one.described() for one in members], field_of("UserName"))
    return {"Group": group, **listed}


def _get_policy(iam: Account, p: Params) -> Result:
    arn = p.need("PolicyArn")
    check_policy_arn(arn)
    if not iam.knows_policy(arn):
        raise missing(f"Policy {arn} was not found.")
    known = iam.policies.get(arn)
    return {"Policy": known or {"PolicyName": arn.rpartition("/")[2], "Arn": arn, "IsAttachable": True}}


GROUP_ACTIONS: dict[str, Action] = {
    "PutGroupPolicy": lambda iam, p: put_group_policy(
        iam, p.need("GroupName"), p.need("PolicyName"), p.need("PolicyDocument")
    ),
    "AttachGroupPolicy": lambda iam, p: attach_group_policy(iam, p.need("GroupName"), p.need("PolicyArn")),
    "ListGroupPolicies": _list_group_policies,
    "GetGroupPolicy": _get_group_policy,
    "ListAttachedGroupPolicies": _list_attached_group_policies,
    "GetGroup": _get_group,
    "GetPolicy": _get_policy,
}
"""The actions on groups' policies, and those that check whether an object exists."""
