"""What the state of a mount, root, role or lease does not allow: each error says which state."""

from __future__ import annotations

from lessor_server.domain.errors import Precondition


class RequestSpent(Precondition):
    """The lease that a request id named has ended, or was never finished."""

    reason = "REQUEST_ID_SPENT"
    mend = "send a new request_id"


class ClockDisagrees(Precondition):
    """The service's time cannot be set by the wall clock: AWS does not bear it out."""

    reason = "CLOCK_DISAGREES"
    mend = "set the machine's clock right, make sure that AWS answers, and call again"


class RootNotSet(Precondition):
    """The mount has no root credentials yet."""

    reason = "ROOT_NOT_SET"
    mend = "give the mount its root with ConfigService.SetRoot"


class RootAccountChanged(Precondition):
    """The new root belongs to another AWS account than the leases that the mount still has."""

    reason = "ROOT_ACCOUNT_CHANGED"
    mend = "enable another mount for the other account, or revoke this mount's leases first"


class RootRefused(Precondition):
    """AWS does not accept the root credentials, or they may not do what the call needs."""

    reason = "ROOT_REFUSED"
    mend = "check the root's key and its policy; ConfigService.CheckRoot prints the least policy"


class EndpointNotAllowed(Precondition):
    """The root's endpoint is no longer one that this server may talk to."""

    reason = "ENDPOINT_NOT_ALLOWED"
    mend = "list the endpoint in the server's setting aws.allowed_endpoints, or set another root"


class SealBroken(Precondition):
    """What is sealed in the store does not open: another key, another place, or damage."""

    reason = "SEAL_BROKEN"
    mend = "put the data directory's own sealing key back, or set the root anew"


class MountDisabling(Precondition):
    """The mount is being disabled and takes no new leases."""

    reason = "MOUNT_DISABLING"
    mend = "use another mount, or enable this one again once it is gone"


class EtagMismatch(Precondition):
    """Somebody else changed it since it was read."""

    reason = "ETAG_MISMATCH"
    mend = "read it again, apply the change to what you read, and send the new etag"


class RoleNotUsable(Precondition):
    """AWS does not know a policy or a group that the role names."""

    reason = "ROLE_REFUSED_BY_AWS"
    mend = "mend the role's policy_document, policy_arns, iam_groups or boundary; AWS's code says which"


class LeaseExpired(Precondition):
    """The lease's time is over."""

    reason = "LEASE_EXPIRED"
    mend = "ask for new credentials"


class LeaseRevoking(Precondition):
    """The lease is being revoked."""

    reason = "LEASE_REVOKING"
    mend = "ask for new credentials"


class LeaseAbandoned(Precondition):
    """The lease was abandoned: nobody tries to revoke it any more."""

    reason = "LEASE_ABANDONED"
    mend = "revoke the lease to take it up again, and ask for new credentials"


class NotRenewable(Precondition):
    """The lease cannot be renewed: it is half-made or of a kind whose life AWS has fixed."""

    reason = "NOT_RENEWABLE"
    mend = "ask for new credentials"
