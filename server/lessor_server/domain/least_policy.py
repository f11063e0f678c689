"""What a root must be allowed to do on AWS, as a policy to paste."""

from __future__ import annotations

from dataclasses import dataclass

from lessor_server.domain.policy import JsonValue

_ON_USERS = (
    "iam:CreateUser",
    "iam:DeleteUser",
    "iam:GetUser",
    "iam:TagUser",
    "iam:PutUserPolicy",
    "iam:DeleteUserPolicy",
    "iam:AttachUserPolicy",
    "iam:DetachUserPolicy",
    "iam:AddUserToGroup",
    "iam:RemoveUserFromGroup",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
    "iam:ListAccessKeys",
    "iam:ListUserPolicies",
    "iam:ListAttachedUserPolicies",
    "iam:ListGroupsForUser",
    "iam:ListMFADevices",
    "iam:DeactivateMFADevice",
    "iam:ListSSHPublicKeys",
    "iam:DeleteSSHPublicKey",
    "iam:ListSigningCertificates",
    "iam:DeleteSigningCertificate",
    "iam:ListServiceSpecificCredentials",
    "iam:DeleteServiceSpecificCredential",
    "iam:DeleteLoginProfile",
)
_ON_GROUPS = (
    "iam:AddUserToGroup",
    "iam:RemoveUserFromGroup",
    "iam:GetGroup",
    "iam:ListGroupPolicies",
    "iam:GetGroupPolicy",
    "iam:ListAttachedGroupPolicies",
)
_ON_ALL = ("iam:ListUsers", "iam:GetAccountSummary", "iam:GetPolicy", "iam:SimulatePrincipalPolicy")
_ON_ROLES = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
_ON_TOKENS = ("sts:GetFederationToken", "sts:TagSession")
_ON_ITSELF = (
    "iam:GetUser",
    "iam:ListAccessKeys",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
)

WITHOUT_PERMISSION = ("sts:GetCallerIdentity", "sts:GetSessionToken")
"""AWS asks for no permission to call these (STS API Reference, each operation's "Permissions")."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Hold one statement of the policy: its Sid, and which actions it allows on which resources."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """Hold whom the policy is for: the ``account`` ("partition:number"), and this installation's id.

    ``user_arn`` is the root's own user, empty where the root is no user: then it has no keys to rotate and
    AWS makes no federation tokens for it. ``role_arns`` are what the mount's roles may assume; where there
    are none yet, each role of the account is taken.
    """

    account: str
    instance: str
    user_arn: str = ""
    role_arns: tuple[str, ...] = ()


def grants(holder: Holder) -> tuple[Grant, ...]:
    """Return what the root of ``holder`` needs.

    Resource types by action: Service Authorization Reference, "Actions, resources, and condition keys" for
    AWS Identity and Access Management and for AWS Security Token Service. Memberships are checked on the
    group. The root's own key is rotated by itself.
    """
    partition, _, number = holder.account.rpartition(":")
    base = f"arn:{partition}:iam::{number}"
    needed = (
        Grant("LessorUsers", _ON_USERS, (f"{base}:user/lessor/{holder.instance}/*",)),
        Grant("LessorGroups", _ON_GROUPS, (f"{base}:group/*",)),
        Grant("LessorReads", _ON_ALL, ("*",)),
        Grant("LessorRoles", _ON_ROLES, holder.role_arns or (f"{base}:role/*",)),
    )
    if not holder.user_arn:
        return needed
    return (
        *needed,
        Grant("LessorTokens", _ON_TOKENS, ("*",)),
        Grant("LessorOwnKey", _ON_ITSELF, (holder.user_arn,)),
    )


def document(needed: tuple[Grant, ...]) -> dict[str, JsonValue]:
    """Return the policy that allows ``needed``, and no more."""
    return {"Version": "2012-10-17", "Statement": [_allow(grant) for grant in needed]}


def _allow(grant: Grant) -> JsonValue:
    resources = list(grant.resources)
    return {
        "Sid": grant.sid,
        "Effect": "Allow",
        "Action": list(grant.actions),
        "Resource": resources if len(resources) > 1 else resources[0],
    }
