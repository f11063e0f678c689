"""The calls of STS that make sessions, and what comes back.

Source of every field's meaning: https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lessor_server.domain.aws.calls import Call
from lessor_server.domain.secret import Secret

Pairs = tuple[tuple[str, str], ...]


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
