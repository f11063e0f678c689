"""Parses Amazon Resource Names, and recognises those of IAM roles and policies.

Source: "Identify AWS resources with Amazon Resource Names (ARNs)" and "IAM identifiers" in AWS's
guides; characters of paths and names: IAM API Reference, ``pathType``, ``policyPathType``, ``roleNameType``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.aws import partition
from lessor_server.domain.policy import wildcard

MAX_ARN: Final = 700
"""The maximum length of an ARN; one of a role or policy has at most 680 (path 512, name 128)."""

_PARTITION: Final = re.compile(r"aws(?:-[a-z]+)*")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_LIST: Final = ",arn:"
"""Two ARNs in one text: a role's path may contain commas and colons, but this is a list."""
_ROLE: Final = re.compile(r"role/(?:[!-.0-~]+/)*[A-Za-z0-9_+=,.@-]{1,64}")
_ROLE_PATTERN: Final = re.compile(r"role/(?:[!-)+-.0-~]+/)*[A-Za-z0-9_+=,.@*-]{1,64}")
_POLICY: Final = re.compile(r"policy/(?:[A-Za-z0-9_+=,.@-]+/)*[A-Za-z0-9_+=,.@-]{1,128}")
_ADMINISTRATOR_ACCESS: Final = ("aws", "policy/AdministratorAccess")
_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Arn:
    """Hold the five parts after ``arn:``; ``region`` and ``account`` may be empty."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    def __str__(self) -> str:
        """Return the whole ARN."""
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"


def parse_arn(text: str) -> Arn | None:
    """Return the parts of ``text``, or None if it is not an ARN of an AWS partition."""
    if len(text) > MAX_ARN:
        return None
    parts = text.split(":", _FIELDS - 1)
    if len(parts) != _FIELDS or parts[0] != "arn" or not _PARTITION.fullmatch(parts[1]):
        return None
    arn = Arn(*parts[1:])
    return arn if arn.service and arn.resource else None


def is_role(text: str) -> bool:
    """Return whether ``text`` is the ARN of one IAM role."""
    return _is_iam(text, _ROLE)


def is_role_pattern(text: str) -> bool:
    """Return whether ``text`` is an IAM role's ARN, which may have ``*`` in its last segment."""
    return _is_iam(text, _ROLE_PATTERN)


def is_policy(text: str) -> bool:
    """Return whether ``text`` is the ARN of an IAM policy, an account's own or AWS's (account ``aws``)."""
    return _is_iam(text, _POLICY, aws_owned=True)


def is_administrator_access(text: str) -> bool:
    """Return whether ``text`` is the ARN of AdministratorAccess in any partition.

    Source: "AWS managed policies for job functions" in the IAM User Guide.
    """
    arn = parse_arn(text)
    return is_policy(text) and arn is not None and (arn.account, arn.resource) == _ADMINISTRATOR_ACCESS


def allows(pattern: str, role_arn: str) -> bool:
    """Return whether ``pattern`` (one of a role's ``role_arns``) matches the whole of ``role_arn``.

    ``*`` matches any characters but ``/``, so a pattern never matches a deeper path.
    """
    folder, _, name = pattern.rpartition("/")
    asked_folder, _, asked_name = role_arn.rpartition("/")
    return is_role(role_arn) and folder == asked_folder and wildcard.matches(name, asked_name)


def _is_iam(text: str, resource: re.Pattern[str], *, aws_owned: bool = False) -> bool:
    arn = parse_arn(text)
    if arn is None or arn.partition not in partition.NAMES or arn.service != "iam" or arn.region:
        return False
    if _LIST in arn.resource:
        return False
    owned = _ACCOUNT.fullmatch(arn.account) is not None or (aws_owned and arn.account == "aws")
    return owned and resource.fullmatch(arn.resource) is not None
