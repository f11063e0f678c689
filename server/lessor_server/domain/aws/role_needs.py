"""What a role needs on AWS: things that exist there, and actions that its mount's root is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lessor_server.domain.aws.iam_calls import Call, GetGroup, GetPolicy
from lessor_server.domain.aws.least_policy import Grant, Holder, iam_arns
from lessor_server.domain.role import CredentialType, Role

_GROUP_READS: Final = ("iam:ListGroupPolicies", "iam:GetGroupPolicy", "iam:ListAttachedGroupPolicies")
"""What it takes to read a group's policies into a session's."""


@dataclass(frozen=True, slots=True)
class ExistenceCheck:
    """Hold a call that fails if something does not exist, and what that is, as a person reads it."""

    what: str
    call: Call[None]


def existence_checks(role: Role) -> list[ExistenceCheck]:
    """Return a check for each thing on AWS that ``role`` names."""
    policies = [*role.policy_arns, *filter(None, (role.permissions_boundary_arn,))]
    found = [ExistenceCheck(f"policy {arn}", GetPolicy(arn)) for arn in policies]
    return found + [ExistenceCheck(f"group {name}", GetGroup(name)) for name in role.iam_groups]


def role_grants(role: Role, holder: Holder) -> list[Grant]:
    """Return what the root must be allowed so that ``role`` can be issued and its leases revoked.

    GetSessionToken needs no permission. Role ARNs with a wildcard cannot be asked for.
    """
    base = iam_arns(holder.account)
    match role.credential_type:
        case CredentialType.IAM_USER:
            users = f"{base}:user/lessor/{holder.instance}/*"
            joining = ("iam:AddUserToGroup", "iam:RemoveUserFromGroup")
            return [Grant("", _on_users(role), (users,)), *_on_groups(role, base, joining)]
        case CredentialType.ASSUMED_ROLE:
            exact = tuple(arn for arn in role.role_arns if "*" not in arn)
            assuming = [Grant("", _on_role(role), exact)] if exact else []
            return [*assuming, *_on_groups(role, base, _GROUP_READS)]
        case CredentialType.FEDERATION_TOKEN:
            tagging = ("sts:TagSession",) if role.session_tags else ()
            return [
                Grant("", ("sts:GetFederationToken", *tagging), ("*",)),
                *_on_groups(role, base, _GROUP_READS),
            ]
        case CredentialType.SESSION_TOKEN:
            return []


def denied(role: Role, actions: list[str], resource: str) -> str:
    """Return the warning that the root is not allowed to do what ``role`` needs."""
    denied_calls = f"the root is not allowed to call {', '.join(actions)} on {resource}"
    if role.credential_type is CredentialType.ASSUMED_ROLE and "sts:AssumeRole" in actions:
        # IAM User Guide, "Policy evaluation logic": a trust policy that names the caller itself is enough.
        return f"{denied_calls}, unless the trust policy there names the root itself"
    return denied_calls


def _on_users(role: Role) -> tuple[str, ...]:
    needed = ["iam:CreateUser", "iam:TagUser", "iam:CreateAccessKey", "iam:DeleteAccessKey", "iam:DeleteUser"]
    if role.policy_document:
        needed += ["iam:PutUserPolicy", "iam:DeleteUserPolicy"]
    if role.policy_arns:
        needed += ["iam:AttachUserPolicy", "iam:DetachUserPolicy"]
    return tuple(needed)


def _on_role(role: Role) -> tuple[str, ...]:
    tagging = ("sts:TagSession",) if role.session_tags else ()
    naming = ("sts:SetSourceIdentity",) if role.source_identity else ()
    return ("sts:AssumeRole", *tagging, *naming)


def _on_groups(role: Role, base: str, actions: tuple[str, ...]) -> list[Grant]:
    """Return the actions on the role's groups, where it has any."""
    groups = tuple(f"{base}:group/{name}" for name in role.iam_groups)
    return [Grant("", actions, groups)] if groups else []
