"""What the limits of the rule that allows a request say about it, before anything is begun."""

from __future__ import annotations

from lessor_server.domain.access.acl import Grant
from lessor_server.domain.access.role_arns import admits
from lessor_server.domain.durations import format_duration
from lessor_server.domain.errors.access import WITHIN_RULE
from lessor_server.domain.errors.base import PermissionDenied, shown
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import STS_FLOOR, CredentialType, Role


def require_allowed(grant: Grant, role: Role, options: SessionOptions) -> None:
    """Raise ``PermissionDenied`` if the limits of ``grant`` allow no credential of ``role`` for this request.

    It may be asked again at each issue: role, request and limits can have changed.
    """
    limits, session_type = grant.limits, role.credential_type is not CredentialType.IAM_USER
    if session_type and limits.max_ttl is not None and limits.max_ttl < STS_FLOOR:
        raise PermissionDenied(
            f"the rule {grant.pattern} has max_ttl {format_duration(limits.max_ttl)}, and a session of the "
            "role has at least 900s",
            fix=WITHIN_RULE,
        )
    if role.credential_type is not CredentialType.ASSUMED_ROLE:
        return
    wanted = session.role_arn_of(role, options)
    if not wanted:
        return  # the request is not valid: the checks of its options say which field is missing
    for patterns in limits.role_arns:
        if not any(admits(pattern, wanted) for pattern in patterns):
            raise PermissionDenied(
                f"role_arn: the role_arns of the rule {grant.pattern} do not allow {shown(wanted)}",
                fix=WITHIN_RULE,
            )
