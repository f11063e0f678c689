"""The permissions that a root needs on AWS, as a policy document."""

from __future__ import annotations

from dataclasses import dataclass, field

from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.role import CredentialType, Role

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
_ON_KEYS = ("iam:ListAccessKeys", "iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey")

WITHOUT_PERMISSION = ("sts:GetCallerIdentity", "sts:GetSessionToken")
"""AWS requires no permission for these (STS API Reference, each operation's "Permissions")."""


MAX_RESOURCES = 200
"""The maximum of resources in a statement: more would exceed a managed policy's 6,144 characters anyway."""


@dataclass(frozen=True, slots=True)
class AllowedActions:
    """Hold one statement of the policy: a Sid, and the actions that it allows on resources."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass(slots=True)
class RoleUse:
    """Hold the needs of a mount's roles, added role by role.

    ``cut`` is true if they name more roles to assume than a statement holds: the first ones are kept.
    """

    any_role: bool = False
    makes_tokens: bool = False
    tags_tokens: bool = False
    assumed: set[str] = field(default_factory=set)
    tagged: set[str] = field(default_factory=set)
    identified: set[str] = field(default_factory=set)
    cut: bool = False

    def add(self, role: Role) -> None:
        """Add one role."""
        self.any_role = True
        if role.credential_type is CredentialType.FEDERATION_TOKEN:
            self.makes_tokens = True
            self.tags_tokens = self.tags_tokens or bool(role.session_tags)
        if role.credential_type is not CredentialType.ASSUMED_ROLE:
            return
        self._name(self.assumed, role)
        if role.session_tags:
            self._name(self.tagged, role)
        if role.source_identity:
            self._name(self.identified, role)

    def _name(self, named: set[str], role: Role) -> None:
        new = [arn for arn in role.role_arns if arn not in named]
        room = MAX_RESOURCES - len(named)
        named.update(new[:room])
        self.cut = self.cut or len(new) > room


@dataclass(frozen=True, slots=True)
class Holder:
    """Hold the inputs of the policy: the ``account`` ("partition:number"), the instance id, and the needs.

    ``key_arn`` is the user of the root's stored key, empty if there is none to rotate; ``makes_tokens`` says
    whether AWS creates federation tokens for the root. ``use`` has the needs of the mount's roles. For its
    static roles, ``static_arns`` are the users that the root manages itself, ``static_hops`` the roles
    that it assumes for the others.
    """

    account: str
    instance: str
    key_arn: str = ""
    makes_tokens: bool = False
    use: RoleUse = field(default_factory=RoleUse)
    static_arns: tuple[str, ...] = ()
    static_hops: tuple[str, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Return whether it needs more resources than its grants can name."""
        return self.use.cut or max(len(self.static_arns), len(self.static_hops)) > MAX_RESOURCES


def grants(holder: Holder) -> tuple[AllowedActions, ...]:
    """Return the least permissions that the root of ``holder`` needs.

    Actions on users are always included, to revoke what earlier roles issued. Actions for sessions follow the
    mount's roles; without any, every role of the account can be assumed. Groups are all of the account's,
    since others may have added a user to any. A root rotates its own key, and verifies it by a call that may
    be denied.

    Resource types by action: Service Authorization Reference, "Actions, resources, and condition keys" for
    AWS Identity and Access Management and for AWS Security Token Service. Memberships are checked on the
    group.
    """
    base = iam_arns(holder.account)
    needed = (
        AllowedActions("LessorUsers", _ON_USERS, (f"{base}:user/lessor/{holder.instance}/*",)),
        AllowedActions("LessorGroups", _ON_GROUPS, (f"{base}:group/*",)),
        AllowedActions("LessorReads", _ON_ALL, ("*",)),
        *_on_roles(holder),
        AllowedActions("LessorTokens", _on_tokens(holder), ("*",)),
        AllowedActions("LessorOwnKey", _ON_KEYS, tuple(filter(None, (holder.key_arn,)))),
        AllowedActions("LessorStaticUsers", ("iam:GetUser", *_ON_KEYS), holder.static_arns[:MAX_RESOURCES]),
        AllowedActions("LessorStaticRoles", ("sts:AssumeRole",), holder.static_hops[:MAX_RESOURCES]),
    )
    return tuple(grant for grant in needed if grant.actions and grant.resources)


def static_user_arns(account: str, user_name: str) -> tuple[str, ...]:
    """Return ARN patterns that match a user with an unknown path, and no user of another name."""
    users = f"{iam_arns(account)}:user"
    return (f"{users}/{user_name}", f"{users}/*/{user_name}")


def iam_arns(account: str) -> str:
    """Return the prefix of IAM's ARNs on an account ("partition:number")."""
    partition, _, number = account.rpartition(":")
    return f"arn:{partition}:iam::{number}"


def _on_roles(holder: Holder) -> tuple[AllowedActions, ...]:
    """Return the grants to assume the roles that the mount's roles name, with tags and source identities."""

    def on(arns: set[str]) -> tuple[str, ...]:
        return tuple(sorted(arns)) if holder.use.any_role else (f"{iam_arns(holder.account)}:role/*",)

    return (
        AllowedActions("LessorRoles", ("sts:AssumeRole",), on(holder.use.assumed)),
        AllowedActions("LessorRoleTags", ("sts:TagSession",), on(holder.use.tagged)),
        AllowedActions("LessorRoleIdentities", ("sts:SetSourceIdentity",), on(holder.use.identified)),
    )


def _on_tokens(holder: Holder) -> tuple[str, ...]:
    use = holder.use
    if not holder.makes_tokens or (use.any_role and not use.makes_tokens):
        return ()
    tagging = use.tags_tokens or not use.any_role
    return ("sts:GetFederationToken", "sts:TagSession") if tagging else ("sts:GetFederationToken",)


def document(needed: tuple[AllowedActions, ...]) -> dict[str, JsonValue]:
    """Return the policy that allows exactly ``needed``."""
    return {"Version": "2012-10-17", "Statement": [_allow(grant) for grant in needed]}


def _allow(grant: AllowedActions) -> JsonValue:
    resources = list(grant.resources)
    return {
        "Sid": grant.sid,
        "Effect": "Allow",
        "Action": list(grant.actions),
        "Resource": resources if len(resources) > 1 else resources[0],
    }
