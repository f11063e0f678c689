"""The calls of IAM and their results as typed values; the base class of all calls.

A call does not know how it is sent. The result of a ``Call[T]`` is a ``T``; ``action`` is
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


# --- results -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreatedUser:
    """A created user."""

    arn: str


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A created access key; AWS returns its secret only once."""

    access_key_id: str
    secret: Secret
    token: Secret = field(default_factory=Secret)
    """The session token of STS's keys; empty for a user's key."""


@dataclass(frozen=True, slots=True)
class IamUser:
    """A user on the account; ``tags`` are empty if they were not requested."""

    name: str
    path: str
    arn: str
    created_us: int
    tags: tuple[tuple[str, str], ...] = ()
    user_id: str = ""
    """AWS's id of the user; a later user of the same name has another."""


@dataclass(frozen=True, slots=True)
class UserPage:
    """Some users, and the marker of the next page, empty on the last."""

    users: tuple[IamUser, ...]
    marker: str


# --- creating a user ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateUser(Call[CreatedUser]):
    """Create a user with path, boundary and tags in one call."""

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
    """Add the user to a group."""

    user_name: str
    group: str


@dataclass(frozen=True, slots=True)
class CreateAccessKey(Call[AccessKey]):
    """Create an access key."""

    user_name: str


# --- deleting it ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeleteAccessKey(Call[None]):
    """Delete an access key, which ends its access."""

    user_name: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class UpdateAccessKey(Call[None]):
    """Activate or deactivate an access key."""

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
    """Remove the user from a group."""

    user_name: str
    group: str


@dataclass(frozen=True, slots=True)
class DeleteUser(Call[None]):
    """Delete the user; AWS answers DeleteConflict while anything is attached to it."""

    user_name: str


@dataclass(frozen=True, slots=True)
class DeleteLoginProfile(Call[None]):
    """Delete the user's console password."""

    user_name: str


@dataclass(frozen=True, slots=True)
class DeactivateMFADevice(Call[None]):
    """Remove an MFA device from the user."""

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
class ListKeyDates(Call[tuple[tuple[str, int], ...]]):
    """List the ids of the user's access keys, each with its creation in microseconds since the epoch."""

    user_name: str

    @property
    def action(self) -> str:
        """Return AWS's name of the action."""
        return "ListAccessKeys"


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
    """Get a user with its tags, which ListUsers omits. It also is the cheapest probe of AWS."""

    user_name: str


@dataclass(frozen=True, slots=True)
class ListUsers(Call[UserPage]):
    """List one page of the users below a path; ``marker`` continues after the previous page."""

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
    """Check whether a group exists."""

    group: str


@dataclass(frozen=True, slots=True)
class GetPolicy(Call[None]):
    """Check whether a managed policy exists."""

    policy_arn: str


@dataclass(frozen=True, slots=True)
class VerifyKeyOnIam(Call[None]):
    """Check whether IAM accepts an access key of ``user_name``, by a call signed with it."""

    key: AccessKey
    user_name: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """A page of IAM's simulator, as (action, resource, verdict), and the marker of the next page.

    The verdicts are ``allowed``, ``explicitDeny`` and ``implicitDeny`` (IAM API Reference, EvaluationResult).
    """

    verdicts: tuple[tuple[str, str, str], ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class SimulatePrincipalPolicy(Call[Simulated]):
    """Simulate whether a principal may do each action on each resource."""

    source_arn: str
    actions: tuple[str, ...]
    resource_arns: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class UserRoom:
    """The number of users of an account, and its quota; 0 if AWS does not report it."""

    users: int
    quota: int


@dataclass(frozen=True, slots=True)
class GetAccountSummary(Call[UserRoom]):
    """Get the account's number of users and its quota."""
