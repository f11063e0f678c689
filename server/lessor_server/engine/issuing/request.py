"""The request for credentials, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from lessor_server.domain.access.acl import Grant
from lessor_server.domain.lease import Lease, Request
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """A caller's request for credentials; ``ttl`` and ``wait_usable`` (seconds) None mean the role's.

    ``labels`` are attributes from the caller's identity.
    """

    mount: str
    role: str
    owner: str
    ttl: timedelta | None
    grant: Grant
    """What allows the request: its limits hold for what is issued."""
    request: Request | None = None
    wait_usable: float | None = None
    options: SessionOptions = session.NO_OPTIONS
    labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the request and its repeats; empty if it has no id."""
        return (self.owner, self.mount, self.role, self.request.id) if self.request else ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """An issued credential. No other value holds its secret. Only a session has a ``token``.

    ``packed_percent`` is the used share of AWS's limit for the policies and tags of a session.
    """

    lease: Lease
    secret: Secret
    arn: str
    warnings: tuple[str, ...] = ()
    usable: bool = False
    token: Secret = field(default_factory=Secret)
    packed_percent: int = 0
