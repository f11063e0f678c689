"""Calls that the state of a mount, root, role or lease does not allow: each error names the state."""

from __future__ import annotations

from lessor_server.domain.errors.base import Precondition


class RequestSpent(Precondition):
    """The lease of this request id has ended, or its issue never finished."""

    reason = "REQUEST_ID_SPENT"
    fix = "send a new request_id"


class BackupByDatabase(Precondition):
    """The store is a PostgreSQL database, which the server does not copy."""

    reason = "BACKUP_BY_DATABASE"
    fix = "use pg_dump or continuous archiving; docs/running.md says which key belongs to such a backup"


class ClockDisagrees(Precondition):
    """AWS does not confirm the machine's wall clock, so the service's time cannot be set to it."""

    reason = "CLOCK_DISAGREES"
    fix = "correct the machine's clock, make sure that AWS answers, and call again"


class RootNotSet(Precondition):
    """The mount has no root credentials yet."""

    reason = "ROOT_NOT_SET"
    fix = "give the mount its root with ConfigService.SetRoot"


class RootAccountChanged(Precondition):
    """The new root belongs to another AWS account than the leases that the mount still has."""

    reason = "ROOT_ACCOUNT_CHANGED"
    fix = "enable another mount for the other account, or revoke this mount's leases first"


class RootRefused(Precondition):
    """AWS does not accept the root credentials, or denies them what the call needs."""

    reason = "ROOT_REFUSED"
    fix = "check the root's key and its policy; ConfigService.CheckRoot prints the least policy"


class RootKindUnfit(Precondition):
    """AWS creates no session of the role's type for the kind of root that the mount has."""

    reason = "ROOT_KIND"
    fix = (
        "use a mount whose root is an IAM user's access key, or give the role a credential_type that this "
        "root can serve: IAM_USER, or, unless it is the account's root user, ASSUMED_ROLE"
    )


class IdentityTokenUnusable(Precondition):
    """The server can't read the root's web identity token, or it is malformed or for another audience."""

    reason = "IDENTITY_TOKEN_UNUSABLE"
    fix = "make identity_token_file readable for the server, with a token for identity_token_audience"


class EndpointNotAllowed(Precondition):
    """The server's settings no longer allow the root's endpoint."""

    reason = "ENDPOINT_NOT_ALLOWED"
    fix = "list the endpoint in the server's setting aws.allowed_endpoints, or set another root"


class SealBroken(Precondition):
    """A sealed value in the store can't be decrypted: the key is wrong, or the value was moved or damaged."""

    reason = "SEAL_BROKEN"
    fix = "put the data directory's own sealing key back, or set the root again"


class ConsoleOff(Precondition):
    """The server has no console: no HTTP listener, or its console is turned off."""

    reason = "CONSOLE_OFF"
    fix = "set http.listen, and http.console to true"


class StaticRoleHeld(Precondition):
    """The static role is held, because another system rotates its user's keys: it has no key to give."""

    reason = "STATIC_ROLE_HELD"
    fix = "stop the other system's rotation of the user, then call RoleService.ResumeStaticRole"


class MountDisabling(Precondition):
    """The mount is being disabled and issues no new leases."""

    reason = "MOUNT_DISABLING"
    fix = "use another mount, or enable this one again once it is gone"


class EtagMismatch(Precondition):
    """Another call changed the object since it was read."""

    reason = "ETAG_MISMATCH"
    fix = "read it again, apply the change to what you read, and send the new etag"


class RoleNotUsable(Precondition):
    """AWS does not know a policy or a group that the role names."""

    reason = "ROLE_REFUSED_BY_AWS"
    fix = "correct the role's policy_document, policy_arns, iam_groups or boundary; AWS's code says which"


class PolicyTooLarge(Precondition):
    """AWS refuses the size of the role's policy: 2,048 characters for a user, white space not counted."""

    reason = "POLICY_TOO_LARGE"
    fix = "shorten the role's policy_document, or move a part of it to a managed policy in policy_arns"


class ClockRefused(Precondition):
    """AWS refuses the time of a request: the clock of the server's machine is wrong by minutes."""

    reason = "CLOCK_REFUSED"
    fix = "correct the clock of the server's machine, by NTP; AWS accepts at most five minutes of difference"


class SessionTooLong(Precondition):
    """AWS creates no session that long: the role's MaxSessionDuration is lower, or the role is chained."""

    reason = "SESSION_TOO_LONG"
    fix = "ask for a shorter ttl, lower the role's max_sts_ttl, or raise the IAM role's MaxSessionDuration"


class SessionTooLarge(Precondition):
    """The session's policies and tags do not fit into the space that AWS packs them into."""

    reason = "SESSION_TOO_LARGE"
    fix = "shorten the role's policies, groups and tags, or the request's session_policy"


class NoSessionPolicy(Precondition):
    """No policy would limit the session: the role has none, or only groups that have none."""

    reason = "NO_SESSION_POLICY"
    fix = "give the role a policy_document or policy_arns, or its groups a policy"


class AssumeRoleRefused(Precondition):
    """AWS does not let the mount's root assume the IAM role."""

    reason = "ASSUME_ROLE_REFUSED"
    fix = (
        "let the IAM role's trust policy name the root (with the role's external_id, and sts:TagSession or "
        "sts:SetSourceIdentity where the role uses them), and the root's policy allow sts:AssumeRole on it"
    )


class MfaRefused(Precondition):
    """AWS does not accept the MFA code: it is wrong, was used before, or is from another device."""

    reason = "MFA_REFUSED"
    fix = "send the device's next code; if that fails too, check the role's mfa_serial_number"


class TemplateLabelUnknown(Precondition):
    """A template of the role uses a label that the caller does not have."""

    reason = "TEMPLATE_LABEL_UNKNOWN"
    fix = "call with an identity that has the label, or remove it from the role"


class TemplateValueUnsafe(Precondition):
    """A value for the role's template holds characters that are unsafe or not accepted there."""

    reason = "TEMPLATE_VALUE_UNSAFE"
    fix = "call with another identity, or use {{identity.name_sha256}} in the role"


class LeaseExpired(Precondition):
    """The lease's time is over."""

    reason = "LEASE_EXPIRED"
    fix = "ask for new credentials"


class LeaseRevoking(Precondition):
    """The lease is being revoked."""

    reason = "LEASE_REVOKING"
    fix = "ask for new credentials"


class LeaseAbandoned(Precondition):
    """The lease was abandoned: the server no longer tries to revoke it."""

    reason = "LEASE_ABANDONED"
    fix = "revoke the lease to retry it, and ask for new credentials"


class NotRenewable(Precondition):
    """The lease cannot be renewed: its issue is not finished, or AWS has fixed its end."""

    reason = "NOT_RENEWABLE"
    fix = "ask for new credentials"


class KeyLimit(Precondition):
    """The IAM user has two access keys, AWS's maximum, and Lessor is not allowed to delete one of them."""

    reason = "KEY_LIMIT"
    fix = "delete the unused key in AWS, or call with delete_other_key"

    def __init__(self, user_name: str, key_ids: tuple[str, ...]) -> None:
        """Name the user and its keys."""
        super().__init__(f"user {user_name} has the keys {' and '.join(key_ids)} already", subject=user_name)


class RootNotRotatable(Precondition):
    """The mount's root is not an IAM user with stored keys, so it has no access key that could be rotated."""

    reason = "ROOT_NOT_ROTATABLE"
    fix = "give the mount the access key of an IAM user; other roots renew themselves"


class RootKeyRotatedAway(Precondition):
    """A rotation replaced this access key of the root, and the key is deleted."""

    reason = "ROOT_KEY_ROTATED_AWAY"
    fix = "leave access_key and secret_key out of update_mask, or set a newer key"


class RootKeyInUse(Precondition):
    """The access key is the root of another mount, so a rotation neither deactivates nor deletes it."""

    reason = "ROOT_KEY_IN_USE"
    fix = "give the mount that the message names a root of its own; the key is then deleted automatically"


class StaticKeyInUse(Precondition):
    """The access key is a static role's, so no other rotation deletes it, even with delete_other_key."""

    reason = "STATIC_KEY_IN_USE"
    fix = "delete the static role that the message names, if nobody needs it; or use another IAM user"


class StaticUserTaken(Precondition):
    """Another static role, or a mount's root, already rotates the keys of the IAM user."""

    reason = "STATIC_USER_TAKEN"
    fix = "name another IAM user, or first delete the static role or replace the root that the message names"

    def __init__(self, user_name: str, holder: str) -> None:
        """Name the user, and the object that holds its keys."""
        super().__init__(f"user {user_name} already belongs to {holder}", subject=user_name)


class StaticUserChanged(Precondition):
    """The IAM user of a static role was deleted and created again, so it is a different user."""

    reason = "STATIC_USER_CHANGED"
    fix = "delete the static role and store it again, if the new user is the intended one"


class StaticUserUnknown(Precondition):
    """AWS does not know the IAM user that a static role names."""

    reason = "STATIC_USER_UNKNOWN"
    fix = "create the user in AWS, or correct username"
