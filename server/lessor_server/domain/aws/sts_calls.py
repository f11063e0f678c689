"""The calls of STS as typed values, and what comes back.

Source of every field's meaning: https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lessor_server.domain.aws.iam_calls import AccessKey, Call
from lessor_server.domain.secret import Secret

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who AWS says we are."""

    account: str
    arn: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session's credentials; ``arn`` is empty where AWS names none, ``packed_percent`` 0 to 100.

    ``expires_us`` is AWS's own instant, in microseconds since the epoch.
    """

    access_key_id: str
    secret: Secret
    token: Secret
    expires_us: int
    arn: str = ""
    packed_percent: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """An MFA device and the code that it shows now; without a serial number none is asked for."""

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
    """Assume an IAM role by a token of an identity provider; nobody signs this call."""

    role_arn: str
    session_name: str
    seconds: int
    token: Secret


@dataclass(frozen=True, slots=True)
class GetFederationToken(Call[Session]):
    """Make a session of a federated user; without a policy it may do nothing."""

    name: str
    seconds: int
    policy: str = ""
    policy_arns: tuple[str, ...] = ()
    tags: Pairs = ()


@dataclass(frozen=True, slots=True)
class GetSessionToken(Call[Session]):
    """Make a session with the root's own rights."""

    seconds: int
    device: Device = field(default_factory=Device)


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
