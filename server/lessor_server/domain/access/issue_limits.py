"""The limits of a rule on what is issued under it, and those that are judged before anything is begun.

Where each is enforced:

- ``max_ttl``: ``require_allowed`` here refuses sessions if it is below 900 s. ``domain/ttl.py`` bounds the
  life of a lease when it is issued and renewed, and ``engine/issuing/sts_session.py`` that of a session.
- ``max_leases``: the store, in the INSERT of the intent.
- ``role_arns``: ``require_allowed`` here.
- ``require``, ``forbid``: ``services/creds.py``, before the engine is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lessor_server.domain.aws import partition
from lessor_server.domain.aws.arn import Arn, is_role, parse_arn
from lessor_server.domain.durations import format_duration
from lessor_server.domain.errors.access import WITHIN_RULE
from lessor_server.domain.errors.base import PermissionDenied, Violation, shown
from lessor_server.domain.policy import session, wildcard
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import STS_FLOOR, CredentialType, Role

REQUEST_FIELDS: Final = (
    "ttl",
    "role_arn",
    "role_session_name",
    "mfa_code",
    "session_policy",
    "request_id",
    "wait_usable",
    "reason",
)
"""The fields of GenerateCredentialsRequest, except those that name the role."""
_ACCOUNT: Final = re.compile(r"[0-9]{12}|(?=.*\*)[0-9*]{1,12}")
_RESOURCE: Final = re.compile(r"role/(?:[!-.0->@-~]+/)*[A-Za-z0-9_+=,.@*-]{1,64}")
"""``?`` may be in a role's path, but a pattern with it could be read as a wildcard."""


@dataclass(frozen=True, slots=True)
class IssueLimits:
    """Limits on what is issued under a rule.

    ``max_ttl`` bounds the whole life of a lease, and ``max_leases`` the live leases of one owner. A session's
    role ARN must match one pattern of each list in ``role_arns``. ``require`` and ``forbid`` name fields of
    the request.
    """

    max_ttl: timedelta | None = None
    max_leases: int | None = None
    role_arns: tuple[tuple[str, ...], ...] = ()
    require: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()

    def both(self, other: IssueLimits) -> IssueLimits:
        """Return the limits that hold both these and ``other``."""
        return IssueLimits(
            max_ttl=min(filter(None, (self.max_ttl, other.max_ttl)), default=None),
            max_leases=min(
                (count for count in (self.max_leases, other.max_leases) if count is not None), default=None
            ),
            role_arns=tuple(dict.fromkeys((*self.role_arns, *other.role_arns))),
            require=self.require | other.require,
            forbid=self.forbid | other.forbid,
        )


NO_LIMITS = IssueLimits()


def require_allowed(pattern: str, limits: IssueLimits, role: Role, options: SessionOptions) -> None:
    """Raise ``PermissionDenied`` if the limits of a rule allow no credential of ``role`` for this request.

    It may be asked again at each issue: role, request and limits can have changed.
    """
    is_session = role.credential_type is not CredentialType.IAM_USER
    if is_session and limits.max_ttl is not None and limits.max_ttl < STS_FLOOR:
        raise PermissionDenied(
            f"the rule {pattern} has max_ttl {format_duration(limits.max_ttl)}, and a session of the "
            "role has at least 900s",
            fix=WITHIN_RULE,
        )
    if role.credential_type is not CredentialType.ASSUMED_ROLE:
        return
    wanted = session.role_arn_of(role, options)
    if not wanted:
        return  # the request is not valid: the checks of its options say which field is missing
    for patterns in limits.role_arns:
        if not any(admits(one, wanted) for one in patterns):
            raise PermissionDenied(
                f"role_arn: the role_arns of the rule {pattern} do not allow {shown(wanted)}",
                fix=WITHIN_RULE,
            )


def role_arn_violations(field: str, pattern: str) -> list[Violation]:
    """Return the violations of a pattern of role ARNs.

    ``*`` stands for any characters but ``/``, anywhere in the account and in the resource. So a pattern never
    matches a deeper path, as with the ``role_arns`` of a role (``domain/aws/arn.py``).
    """
    arn = parse_arn(pattern)
    is_iam = arn is not None and arn.partition in partition.NAMES and (arn.service, arn.region) == ("iam", "")
    if arn is not None and is_iam and _ACCOUNT.fullmatch(arn.account) and _RESOURCE.fullmatch(arn.resource):
        return []
    fix = "write it as arn:aws:iam::*:role/deploy-*"
    return [Violation(field, f"{shown(pattern)} is not a pattern of role ARNs", fix)]


def admits(pattern: str, role_arn: str) -> bool:
    """Return whether ``pattern`` matches the whole of ``role_arn``, the ARN of one role."""
    wanted, given = parse_arn(pattern), parse_arn(role_arn)
    if wanted is None or given is None or not is_role(role_arn):
        return False
    own, asked = _segments(wanted), _segments(given)
    return len(own) == len(asked) and all(
        wildcard.matches(part, text) for part, text in zip(own, asked, strict=True)
    )


def _segments(arn: Arn) -> list[str]:
    return [arn.partition, arn.service, arn.region, arn.account, *arn.resource.split("/")]
