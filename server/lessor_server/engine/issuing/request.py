"""The request for credentials, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from lessor_server.domain.lease import Lease, Request
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import Ask
from lessor_server.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """What a caller asks for; ``ttl`` None asks for the default, ``wait_usable`` is in seconds.

    ``labels`` are what the caller's identity says of it beside its name.
    """

    mount: str
    role: str
    owner: str
    ttl: timedelta | None
    request: Request | None = None
    wait_usable: float = 0.0
    ask: Ask = session.NOTHING
    labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Return what the request and its repeats have in common; empty if it has no id."""
        return (self.owner, self.mount, self.role, self.request.id) if self.request else ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """An issued credential: the only value that ever holds its secret; a session's has a ``token``, too.

    ``packed_percent`` is how much of AWS's room for a session's policies and tags it takes.
    """

    lease: Lease
    secret: Secret
    arn: str
    warnings: tuple[str, ...] = ()
    usable: bool = False
    token: Secret = field(default_factory=Secret)
    packed_percent: int = 0
