"""The calls of IAM as typed values, and what comes back; the base class of all calls.

A call knows nothing of how it is sent. ``Call[T]`` says with ``T`` what its answer is; ``action`` is
AWS's own name (https://docs.aws.amazon.com/IAM/latest/APIReference/API_Operations.html).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lessor_server.domain.secret import Secret

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One request to AWS whose answer is a ``T_co``."""

    @property
    def action(self) -> str:
        """Return AWS's name of the action."""
        return type(self).__name__

    @property
    def user(self) -> str:
        """Return the user that the call works on, or an empty text."""
        return str(getattr(self, "user_name", ""))


# --- what comes back ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreatedUser:
    """A user that now exists."""

    arn: str


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key that now works; AWS returns its secret only once."""

    access_key_id: str
    secret: Secret
    token: Secret = field(default_factory=Secret)
    """The session token of a key that STS made; empty for a user's key."""


@dataclass(frozen=True, slots=True)
class IamUser:
    """A user on the account; ``tags`` are empty where AWS was not asked for them."""

    name: str
    path: str
    arn: str
    created_us: int
    tags: tuple[tuple[str, str], ...] = ()
    user_id: str = ""
    """AWS's own id of the user, which no later user of the same name has."""


@dataclass(frozen=True, slots=True)
class UserPage:
    """Some users, and the marker of the next page, empty on the last."""

    users: tuple[IamUser, ...]
    marker: str


# --- creating a user ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateUser(Call[CreatedUser]):
    """Make a user with path, boundary and tags in the same call."""

    user_name: str
    path: str
    boundary_arn: str
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PutUserPolicy(Call[None]):
    """Write an inline policy."""

    user_name: str
    policy_name: str
    document: str


@dataclass(frozen=True, slots=True)
class AttachUserPolicy(Call[None]):
    """Attach a managed policy."""

    user_name: str
    policy_arn: str


@dataclass(frozen=True, slots=True)
class AddUserToGroup(Call[None]):
    """Make the user a member of a group."""

    user_name: str
    group: str


@dataclass(frozen=True, slots=True)
class CreateAccessKey(Call[AccessKey]):
    """Make an access key."""

    user_name: str


# --- deleting it ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeleteAccessKey(Call[None]):
    """Delete an access key: this cuts access."""

    user_name: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class UpdateAccessKey(Call[None]):
    """Let an access key work, or no longer."""

    user_name: str
    access_key_id: str
    active: bool


@dataclass(frozen=True, slots=True)
class DeleteUserPolicy(Call[None]):
    """Delete an inline policy."""

    user_name: str
    policy_name: str


@dataclass(frozen=True, slots=True)
class DetachUserPolicy(Call[None]):
    """Detach a managed policy."""

    user_name: str
    policy_arn: str


@dataclass(frozen=True, slots=True)
class RemoveUserFromGroup(Call[None]):
    """End the user's membership of a group."""

    user_name: str
    group: str


@dataclass(frozen=True, slots=True)
class DeleteUser(Call[None]):
    """Delete the user; AWS refuses with DeleteConflict while anything hangs on it."""

    user_name: str


@dataclass(frozen=True, slots=True)
class DeleteLoginProfile(Call[None]):
    """Delete the user's console password."""

    user_name: str


@dataclass(frozen=True, slots=True)
class DeactivateMFADevice(Call[None]):
    """Take an MFA device off the user."""

    user_name: str
    serial: str


@dataclass(frozen=True, slots=True)
class DeleteSSHPublicKey(Call[None]):
    """Delete an SSH public key."""

    user_name: str
    key_id: str


@dataclass(frozen=True, slots=True)
class DeleteSigningCertificate(Call[None]):
    """Delete a signing certificate."""

    user_name: str
    certificate_id: str


@dataclass(frozen=True, slots=True)
class DeleteServiceSpecificCredential(Call[None]):
    """Delete a service-specific credential (CodeCommit, Keyspaces)."""

    user_name: str
    credential_id: str


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListAccessKeys(Call[tuple[str, ...]]):
    """List the ids of the user's access keys, oldest first."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListUserPolicies(Call[tuple[str, ...]]):
    """List the names of the user's inline policies."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListAttachedUserPolicies(Call[tuple[str, ...]]):
    """List the ARNs of the managed policies on the user."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListGroupsForUser(Call[tuple[str, ...]]):
    """List the groups that the user is in."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListMFADevices(Call[tuple[str, ...]]):
    """List the serial numbers of the user's MFA devices."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListSSHPublicKeys(Call[tuple[str, ...]]):
    """List the ids of the user's SSH public keys."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListSigningCertificates(Call[tuple[str, ...]]):
    """List the ids of the user's signing certificates."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListServiceSpecificCredentials(Call[tuple[str, ...]]):
    """List the ids of the user's service-specific credentials."""

    user_name: str


@dataclass(frozen=True, slots=True)
class GetUser(Call[IamUser]):
    """Ask for a user with its tags, which ListUsers leaves out. It is the cheapest sign of life, too."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListUsers(Call[UserPage]):
    """List one page of the users below a path; ``marker`` continues after the page before."""

    path_prefix: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """One page of names or ARNs, and the marker of the next page, empty on the last."""

    names: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class ListGroupPolicies(Call[Names]):
    """List the names of a group's inline policies, one page of them."""

    group: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class GetGroupPolicy(Call[str]):
    """Read one inline policy of a group, as JSON text."""

    group: str
    policy_name: str


@dataclass(frozen=True, slots=True)
class ListAttachedGroupPolicies(Call[Names]):
    """List the ARNs of a group's managed policies, one page of them."""

    group: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class GetGroup(Call[None]):
    """See whether a group exists."""

    group: str


@dataclass(frozen=True, slots=True)
class GetPolicy(Call[None]):
    """See whether a managed policy exists."""

    policy_arn: str


@dataclass(frozen=True, slots=True)
class VerifyKeyOnIam(Call[None]):
    """Ask IAM whether it accepts an access key of ``user_name``, signing with that key itself."""

    key: AccessKey
    user_name: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """Some of what IAM's simulator says, as (action, resource, verdict), and the marker of the next page.

    The verdicts are ``allowed``, ``explicitDeny`` and ``implicitDeny`` (IAM API Reference, EvaluationResult).
    """

    verdicts: tuple[tuple[str, str, str], ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class SimulatePrincipalPolicy(Call[Simulated]):
    """Ask IAM's simulator whether a principal may do each action on each resource."""

    source_arn: str
    actions: tuple[str, ...]
    resource_arns: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class UserRoom:
    """How many users an account has, and how many it may have; 0 where AWS does not say."""

    users: int
    quota: int


@dataclass(frozen=True, slots=True)
class GetAccountSummary(Call[UserRoom]):
    """Ask how full the account is."""
