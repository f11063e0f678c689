"""The kind of a root's identity, and the credentials that it can therefore serve.

Source: IAM User Guide, "Compare AWS STS credentials" and "Role chaining": temporary credentials cannot call
GetFederationToken or GetSessionToken, and a role assumed by an assumed role lasts at most one hour.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Final

from lessor_server.domain.aws.arn import parse_arn
from lessor_server.domain.durations import format_duration
from lessor_server.domain.role import STS_CEILINGS, CredentialType, Role
from lessor_server.domain.root import RootConfig


class RootKind(Enum):
    """The kinds of roots."""

    USER_KEYS = "USER_KEYS"
    ACCOUNT_ROOT = "ACCOUNT_ROOT"
    ASSUMED_ROLE = "ASSUMED_ROLE"
    WEB_IDENTITY = "WEB_IDENTITY"
    INSTANCE_ROLE = "INSTANCE_ROLE"


CHAINED_CEILING: Final = timedelta(hours=1)
_SDK_WEB_SESSION: Final = "botocore-session-"
"""The SDK's prefix for names of sessions that it creates with AWS_WEB_IDENTITY_TOKEN_FILE. AWS names
sessions of instances and containers.
"""


def kind_of(config: RootConfig, arn: str) -> RootKind:
    """Return the kind of a root with the identity ``arn`` (empty if it is not known yet).

    The server's own credentials may be a user's keys or a role's: only ``arn`` shows which.
    """
    if config.identity_token_file and len(config.assume_chain) <= 1:
        return RootKind.WEB_IDENTITY
    if config.assume_chain:
        return RootKind.ASSUMED_ROLE
    if arn.endswith(":root"):
        return RootKind.ACCOUNT_ROOT
    if config.access_key or ":user/" in arn:
        return RootKind.USER_KEYS
    if f"/{_SDK_WEB_SESSION}" in arn:
        return RootKind.WEB_IDENTITY
    return RootKind.INSTANCE_ROLE


def longest_session(kind: RootKind, credential_type: CredentialType) -> timedelta | None:
    """Return the longest session of ``credential_type`` that such a root can create; None if it can't.

    For IAM_USER, which is not a session, the result is zero if the root can create users.
    """
    if credential_type is CredentialType.IAM_USER:
        return timedelta(0)
    if kind is RootKind.USER_KEYS:
        return STS_CEILINGS[credential_type]
    if kind is RootKind.ACCOUNT_ROOT:
        # IAM User Guide: the account's root user can assume no role; its sessions last one hour.
        return None if credential_type is CredentialType.ASSUMED_ROLE else CHAINED_CEILING
    if credential_type is not CredentialType.ASSUMED_ROLE:
        return None
    return STS_CEILINGS[credential_type] if kind is RootKind.INSTANCE_ROLE else CHAINED_CEILING


def unserved(kind: RootKind, role: Role) -> list[str]:
    """Warn of what such a root can't serve of ``role``."""
    longest = longest_session(kind, role.credential_type)
    if longest is None:
        return [f"a root of kind {kind.name} can serve no {role.credential_type.name}"]
    wanted = max((span for span in (role.default_sts_ttl, role.max_sts_ttl) if span), default=longest)
    if wanted <= longest:
        return []
    return [
        f"a root of kind {kind.name} creates sessions of at most {format_duration(longest)}; longer are cut"
    ]


def principal_of(config: RootConfig, arn: str) -> str:
    """Return the user or role whose policies apply to the root ``arn``; empty for another kind.

    A session's ARN omits its role's path (IAM User Guide, "IAM identifiers"). An assume chain has it; for the
    server's own role ``/`` is assumed.
    """
    if config.assume_chain:
        return config.assume_chain[-1].role_arn
    found = parse_arn(arn)
    if found is None:
        return ""
    kind, _, rest = found.resource.partition("/")
    if kind == "user":
        return arn
    if kind != "assumed-role":
        return ""
    return str(replace(found, service="iam", resource=f"role/{rest.partition('/')[0]}"))
