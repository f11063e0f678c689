"""Each request to AWS as a typed value: what is asked, and what the answer is made of.

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Who AWS says we are."""

    account: str
    arn: str
    user_id: str


# --- making a user ------------------------------------------------------------------------------------


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


# --- undoing it ---------------------------------------------------------------------------------------


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


# --- looking ------------------------------------------------------------------------------------------


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
class GetServerTime(Call[int]):
    """Ask STS what time it is: the ``Date`` of its answer (RFC 9110, 6.6.1), in microseconds.

    AWS always returns it; 0 stands for another endpoint that does not.
    """


@dataclass(frozen=True, slots=True)
class VerifyKey(Call[None]):
    """Ask STS whether it accepts an access key, signing with that key itself."""

    key: AccessKey


@dataclass(frozen=True, slots=True)
class GetCallerIdentity(Call[Identity]):
    """Ask STS who the credentials belong to; AWS grants it to every identity."""
