"""The rounds of AWS calls that create a user, delete it, and delete everything attached to it.

The calls of one round can be sent at the same time; the next round begins after their answers.
"""

from __future__ import annotations

from lessor_server.domain.aws import iam_calls
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.lease import Footprint, Lease
from lessor_server.domain.role import Role

INLINE_POLICY = "lessor"
"""The name of the inline policy on every user that has one."""

Round = tuple[Call[object], ...]


def create_user(role: Role, footprint: Footprint, tags: tuple[tuple[str, str], ...]) -> iam_calls.CreateUser:
    """Return the first call of an issue."""
    boundary = role.permissions_boundary_arn
    return iam_calls.CreateUser(footprint.user_name, footprint.user_path, boundary, tags)


def attach_all(role: Role, footprint: Footprint) -> Round:
    """Return the round that sets up a new user by its role."""
    name = footprint.user_name
    attached: list[Call[object]] = []
    if footprint.inline_policy:
        attached.append(iam_calls.PutUserPolicy(name, footprint.inline_policy, role.policy_document))
    attached += [iam_calls.AttachUserPolicy(name, arn) for arn in footprint.policy_arns]
    attached += [iam_calls.AddUserToGroup(name, group) for group in footprint.groups]
    return tuple(attached)


def revoke_keys(lease: Lease) -> Round:
    """Return the first round of a revocation: delete the stored key, or list all keys."""
    name = lease.footprint.user_name
    if lease.access_key_id:
        return (iam_calls.DeleteAccessKey(name, lease.access_key_id),)
    return (iam_calls.ListAccessKeys(name),)


def delete_keys(user_name: str, key_ids: tuple[str, ...]) -> Round:
    """Return the round that deletes the listed access keys."""
    return tuple(iam_calls.DeleteAccessKey(user_name, key_id) for key_id in key_ids)


def detach_all(footprint: Footprint) -> Round:
    """Return the round that detaches everything that the row lists."""
    name = footprint.user_name
    taken: list[Call[object]] = []
    if footprint.inline_policy:
        taken.append(iam_calls.DeleteUserPolicy(name, footprint.inline_policy))
    taken += [iam_calls.DetachUserPolicy(name, arn) for arn in footprint.policy_arns]
    taken += [iam_calls.RemoveUserFromGroup(name, group) for group in footprint.groups]
    return tuple(taken)


def list_attachments(user_name: str) -> Round:
    """Return the round that lists everything for which AWS refuses DeleteUser.

    Source: IAM API Reference, DeleteUser: "you must delete the items attached to the user manually".
    """
    return (
        iam_calls.ListAccessKeys(user_name),
        iam_calls.ListUserPolicies(user_name),
        iam_calls.ListAttachedUserPolicies(user_name),
        iam_calls.ListGroupsForUser(user_name),
        iam_calls.ListMFADevices(user_name),
        iam_calls.ListSSHPublicKeys(user_name),
        iam_calls.ListSigningCertificates(user_name),
        iam_calls.ListServiceSpecificCredentials(user_name),
    )


def delete_attachments(user_name: str, found: tuple[tuple[Call[object], tuple[str, ...]], ...]) -> Round:
    """Return the round that deletes what ``survey`` found, and the console password."""
    taken: list[Call[object]] = [iam_calls.DeleteLoginProfile(user_name)]
    for listing, names in found:
        taken += [_taking(listing, user_name, name) for name in names]
    return tuple(taken)


def _taking(listing: Call[object], user_name: str, name: str) -> Call[object]:
    """Return the call that deletes one item of ``listing``."""
    match listing:
        case iam_calls.ListAccessKeys():
            return iam_calls.DeleteAccessKey(user_name, name)
        case iam_calls.ListUserPolicies():
            return iam_calls.DeleteUserPolicy(user_name, name)
        case iam_calls.ListAttachedUserPolicies():
            return iam_calls.DetachUserPolicy(user_name, name)
        case iam_calls.ListGroupsForUser():
            return iam_calls.RemoveUserFromGroup(user_name, name)
        case iam_calls.ListMFADevices():
            return iam_calls.DeactivateMFADevice(user_name, name)
        case iam_calls.ListSSHPublicKeys():
            return iam_calls.DeleteSSHPublicKey(user_name, name)
        case iam_calls.ListSigningCertificates():
            return iam_calls.DeleteSigningCertificate(user_name, name)
        case iam_calls.ListServiceSpecificCredentials():
            return iam_calls.DeleteServiceSpecificCredential(user_name, name)
        case _:
            raise AssertionError(f"{listing.action} lists nothing that delete_listed deletes")


def tags_of(instance: str, lease_id: str, role: Role) -> tuple[tuple[str, str], ...]:
    """Return the tags of a user: the role's own, then the three by which Lessor recognises its users."""
    ours = (("lessor:instance", instance), ("lessor:lease", lease_id), ("lessor:role", role.name))
    return (*role.iam_tags, *ours)
