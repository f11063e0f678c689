"""What a root must be allowed to do on AWS, as a policy to paste."""

from __future__ import annotations

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
_ON_GROUPS = ("iam:AddUserToGroup", "iam:RemoveUserFromGroup")
_ON_ALL = ("iam:ListUsers", "iam:GetAccountSummary")

ACTIONS = (*_ON_USERS, *_ON_ALL, "sts:GetCallerIdentity")
"""Every action that Lessor may ask of AWS; sts:GetCallerIdentity needs no permission."""


def document(account: str, instance: str) -> dict[str, JsonValue]:
    """Return the least policy for a root of ``account`` ("partition:number") and this ``instance``.

    Resource types by action: Service Authorization Reference, "Actions, resources, and condition keys
    for AWS Identity and Access Management". Memberships are checked on the group.
    """
    partition, _, number = account.rpartition(":")
    base = f"arn:{partition}:iam::{number}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow("LessorUsers", _ON_USERS, f"{base}:user/lessor/{instance}/*"),
            _allow("LessorGroups", _ON_GROUPS, f"{base}:group/*"),
            _allow("LessorReads", _ON_ALL, "*"),
        ],
    }


def _allow(sid: str, actions: tuple[str, ...], resource: str) -> JsonValue:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}
