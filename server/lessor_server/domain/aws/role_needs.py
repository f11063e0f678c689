"""The needs of a role on AWS: existing objects, and permissions of its mount's root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lessor_server.domain.aws.iam_calls import Call, GetGroup, GetPolicy
from lessor_server.domain.aws.least_policy import AllowedActions, Holder, iam_arns
from lessor_server.domain.role import CredentialType, Role

_GROUP_READS: Final = ("iam:ListGroupPolicies", "iam:GetGroupPolicy", "iam:ListAttachedGroupPolicies")
"""The actions that read a group's policies, for those of a session."""


@dataclass(frozen=True, slots=True)
class ExistenceCheck:
    """Hold a call that fails if an object does not exist, and the object's name for messages."""

    what: str
    call: Call[None]


def existence_checks(role: Role) -> list[ExistenceCheck]:
    """Return a check for each object on AWS that ``role`` names."""
    policies = [*role.policy_arns, *filter(None, (role.permissions_boundary_arn,))]
    found = [ExistenceCheck(f"policy {arn}", GetPolicy(arn)) for arn in policies]
    return found + [ExistenceCheck(f"group {name}", GetGroup(name)) for name in role.iam_groups]


def role_grants(role: Role, holder: Holder) -> list[AllowedActions]:
    """Return the permissions of the root to issue ``role`` and to revoke its leases.

    GetSessionToken needs no permission. Role ARNs with a wildcard cannot be checked.
    """
    base = iam_arns(holder.account)
    match role.credential_type:
        case CredentialType.IAM_USER:
            users = f"{base}:user/lessor/{holder.instance}/*"
            joining = ("iam:AddUserToGroup", "iam:RemoveUserFromGroup")
            return [AllowedActions("", _on_users(role), (users,)), *_on_groups(role, base, joining)]
        case CredentialType.ASSUMED_ROLE:
            exact = tuple(arn for arn in role.role_arns if "*" not in arn)
            assuming = [AllowedActions("", _on_role(role), exact)] if exact else []
            return [*assuming, *_on_groups(role, base, _GROUP_READS)]
        case CredentialType.FEDERATION_TOKEN:
            tagging = ("sts:TagSession",) if role.session_tags else ()
            return [
                AllowedActions("", ("sts:GetFederationToken", *tagging), ("*",)),
                *_on_groups(role, base, _GROUP_READS),
            ]
        case CredentialType.SESSION_TOKEN:
            return []


def denied(role: Role, actions: list[str], resource: str) -> str:
    """Return the warning that the root lacks a permission that ``role`` needs."""
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


def _on_groups(role: Role, base: str, actions: tuple[str, ...]) -> list[AllowedActions]:
    """Return the actions on the role's groups, if it has any."""
    groups = tuple(f"{base}:group/{name}" for name in role.iam_groups)
    return [AllowedActions("", actions, groups)] if groups else []
