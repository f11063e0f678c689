"""What a role needs on AWS: things that exist there, and actions that its mount's root is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from lessor_server.domain.calls import Call
from lessor_server.domain.least_policy import Grant, Holder
from lessor_server.domain.looks import GetGroup, GetPolicy
from lessor_server.domain.role import CredentialType, Role


@dataclass(frozen=True, slots=True)
class Look:
    """Hold a look whether something exists, and what that is, as a person reads it."""

    what: str
    call: Call[None]


def looks(role: Role) -> list[Look]:
    """Return the looks whether what ``role`` names exists."""
    policies = [*role.policy_arns, *filter(None, (role.permissions_boundary_arn,))]
    found = [Look(f"policy {arn}", GetPolicy(arn)) for arn in policies]
    return found + [Look(f"group {name}", GetGroup(name)) for name in role.iam_groups]


def grants(role: Role, holder: Holder) -> list[Grant]:
    """Return what the root must be allowed so that ``role`` can be issued and its leases revoked.

    GetSessionToken needs no permission. Role ARNs with a wildcard cannot be asked for.
    """
    partition, _, number = holder.account.rpartition(":")
    base = f"arn:{partition}:iam::{number}"
    match role.credential_type:
        case CredentialType.IAM_USER:
            on_groups = [
                Grant("", ("iam:AddUserToGroup", "iam:RemoveUserFromGroup"), (f"{base}:group/{name}",))
                for name in role.iam_groups
            ]
            users = f"{base}:user/lessor/{holder.instance}/*"
            return [Grant("", _on_users(role), (users,)), *on_groups]
        case CredentialType.ASSUMED_ROLE:
            exact = [arn for arn in role.role_arns if "*" not in arn]
            return [Grant("", _on_role(role), (arn,)) for arn in exact] + _on_groups(role, base)
        case CredentialType.FEDERATION_TOKEN:
            tagging = ("sts:TagSession",) if role.session_tags else ()
            return [Grant("", ("sts:GetFederationToken", *tagging), ("*",)), *_on_groups(role, base)]
        case CredentialType.SESSION_TOKEN:
            return []


def denied(role: Role, actions: list[str], resource: str) -> str:
    """Return the warning that the root may not do what ``role`` needs."""
    told = f"the root may not call {', '.join(actions)} on {resource}"
    if role.credential_type is CredentialType.ASSUMED_ROLE and "sts:AssumeRole" in actions:
        # IAM User Guide, "Policy evaluation logic": a trust policy that names the caller itself is enough.
        return f"{told}, unless the trust policy there names the root itself"
    return told


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


def _on_groups(role: Role, base: str) -> list[Grant]:
    """Return what it takes to read the policies of the role's groups into a session's policy."""
    reads = ("iam:ListGroupPolicies", "iam:GetGroupPolicy", "iam:ListAttachedGroupPolicies")
    return [Grant("", reads, (f"{base}:group/{name}",)) for name in role.iam_groups]
