"""The patterns of role ARNs in rules: which roles a session of ASSUMED_ROLE may be of.

``*`` stands for any characters but ``/``, anywhere in the account and in the resource. So a pattern
never matches a deeper path, as with the ``role_arns`` of a role (``domain/aws/arn.py``).
"""

from __future__ import annotations

import re
from typing import Final

from lessor_server.domain.aws import partition
from lessor_server.domain.aws.arn import Arn, is_role, parse_arn
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.domain.policy import wildcard

_ACCOUNT: Final = re.compile(r"[0-9]{12}|(?=.*\*)[0-9*]{1,12}")
_RESOURCE: Final = re.compile(r"role/(?:[!-.0->@-~]+/)*[A-Za-z0-9_+=,.@*-]{1,64}")
"""``?`` may be in a role's path, but a pattern with it could be read as a wildcard."""


def role_arn_violations(field: str, pattern: str) -> list[Violation]:
    """Return the violations of a pattern of role ARNs."""
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
