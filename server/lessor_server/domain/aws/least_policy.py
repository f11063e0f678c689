"""What a root must be allowed to do on AWS, as a policy to paste."""

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
"""AWS asks for no permission to call these (STS API Reference, each operation's "Permissions")."""


MAX_RESOURCES = 200
"""A statement names no more: a managed policy holds 6,144 characters (IAM and AWS STS quotas), which is fewer
ARNs of roles than these."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Hold one statement of the policy: its Sid, and which actions it allows on which resources."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass(slots=True)
class RoleUse:
    """Hold what the roles of a mount need their root for, added up role by role.

    ``cut`` is true where they name more roles to assume than a statement holds: those named first are kept.
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
    """Hold whom the policy is for and what for: the ``account`` ("partition:number"), this installation's id.

    ``key_arn`` is the user whose stored key the root is, empty where there is none to rotate;
    ``makes_tokens`` where AWS makes federation tokens for the root. ``use`` is what the mount's roles need;
    of its static roles, ``static_arns`` are the users that the root works on itself, ``static_hops`` the
    roles that it assumes for the others.
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
        """Return whether it needs more resources than the statements of its grants name."""
        return self.use.cut or max(len(self.static_arns), len(self.static_hops)) > MAX_RESOURCES


def grants(holder: Holder) -> tuple[Grant, ...]:
    """Return what the root of ``holder`` needs, and nothing else.

    Users are always in: those that a role of before has left must be found and can be revoked. What makes
    sessions is what the mount's roles name; a mount without any role may still get each kind, so its root is
    allowed to assume each role of the account. Groups are all of the account's, as others may have put a user
    into any. A root rotates its own key itself, and verifies it by a call that may be denied.

    Resource types by action: Service Authorization Reference, "Actions, resources, and condition keys" for
    AWS Identity and Access Management and for AWS Security Token Service. Memberships are checked on the
    group.
    """
    base = iam_arns(holder.account)
    needed = (
        Grant("LessorUsers", _ON_USERS, (f"{base}:user/lessor/{holder.instance}/*",)),
        Grant("LessorGroups", _ON_GROUPS, (f"{base}:group/*",)),
        Grant("LessorReads", _ON_ALL, ("*",)),
        *_on_roles(holder),
        Grant("LessorTokens", _on_tokens(holder), ("*",)),
        Grant("LessorOwnKey", _ON_KEYS, tuple(filter(None, (holder.key_arn,)))),
        Grant("LessorStaticUsers", ("iam:GetUser", *_ON_KEYS), holder.static_arns[:MAX_RESOURCES]),
        Grant("LessorStaticRoles", ("sts:AssumeRole",), holder.static_hops[:MAX_RESOURCES]),
    )
    return tuple(grant for grant in needed if grant.actions and grant.resources)


def static_user_arns(account: str, user_name: str) -> tuple[str, ...]:
    """Return patterns of ARNs that fit a user whose path is not known, and no user of another name."""
    users = f"{iam_arns(account)}:user"
    return (f"{users}/{user_name}", f"{users}/*/{user_name}")


def iam_arns(account: str) -> str:
    """Return how the ARNs of IAM begin on an account, "partition:number"."""
    partition, _, number = account.rpartition(":")
    return f"arn:{partition}:iam::{number}"


def _on_roles(holder: Holder) -> tuple[Grant, ...]:
    """Return what it takes to assume what the mount's roles name, with their tags and source identities."""

    def on(arns: set[str]) -> tuple[str, ...]:
        return tuple(sorted(arns)) if holder.use.any_role else (f"{iam_arns(holder.account)}:role/*",)

    return (
        Grant("LessorRoles", ("sts:AssumeRole",), on(holder.use.assumed)),
        Grant("LessorRoleTags", ("sts:TagSession",), on(holder.use.tagged)),
        Grant("LessorRoleIdentities", ("sts:SetSourceIdentity",), on(holder.use.identified)),
    )


def _on_tokens(holder: Holder) -> tuple[str, ...]:
    use = holder.use
    if not holder.makes_tokens or (use.any_role and not use.makes_tokens):
        return ()
    tagging = use.tags_tokens or not use.any_role
    return ("sts:GetFederationToken", "sts:TagSession") if tagging else ("sts:GetFederationToken",)


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
