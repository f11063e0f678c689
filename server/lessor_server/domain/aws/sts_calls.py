"""The calls of STS and their results as typed values.

Source of every field's meaning: https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lessor_server.domain.aws.iam_calls import AccessKey, Call
from lessor_server.domain.secret import Secret

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """The identity of the caller's credentials."""

    account: str
    arn: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session's credentials; ``arn`` is empty if AWS reports none; ``packed_percent`` is 0 to 100.

    ``expires_us`` is AWS's expiry, in microseconds since the epoch.
    """

    access_key_id: str
    secret: Secret
    token: Secret
    expires_us: int
    arn: str = ""
    packed_percent: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """An MFA device and its current code; an empty serial number means no MFA."""

    serial: str = ""
    code: Secret = field(default_factory=Secret)


@dataclass(frozen=True, slots=True)
class AssumeRole(Call[Session]):
    """Assume an IAM role for ``seconds``; empty texts and tuples are not sent."""

    role_arn: str
    session_name: str
    seconds: int
    policy: str = ""
    policy_arns: tuple[str, ...] = ()
    tags: Pairs = ()
    transitive_keys: tuple[str, ...] = ()
    source_identity: str = ""
    external_id: str = ""
    device: Device = field(default_factory=Device)


@dataclass(frozen=True, slots=True)
class AssumeRoleWithWebIdentity(Call[Session]):
    """Assume an IAM role by a token of an identity provider; this call is not signed."""

    role_arn: str
    session_name: str
    seconds: int
    token: Secret


@dataclass(frozen=True, slots=True)
class GetFederationToken(Call[Session]):
    """Create a session of a federated user; without a policy it may do nothing."""

    name: str
    seconds: int
    policy: str = ""
    policy_arns: tuple[str, ...] = ()
    tags: Pairs = ()


@dataclass(frozen=True, slots=True)
class GetSessionToken(Call[Session]):
    """Create a session with the root's own permissions."""

    seconds: int
    device: Device = field(default_factory=Device)


@dataclass(frozen=True, slots=True)
class GetServerTime(Call[int]):
    """Get STS's time: the ``Date`` of its answer (RFC 9110, 6.6.1), in microseconds.

    AWS always returns it; 0 means that the endpoint is not AWS.
    """


@dataclass(frozen=True, slots=True)
class VerifyKey(Call[None]):
    """Check whether STS accepts an access key, by a call signed with it."""

    key: AccessKey


@dataclass(frozen=True, slots=True)
class GetCallerIdentity(Call[AwsIdentity]):
    """Get the identity of the credentials; every identity may call this."""
