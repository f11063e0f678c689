"""What a caller wishes, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lessor_server.domain.lease import Lease, Request
from lessor_server.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for; ``ttl`` None asks for the default, ``wait_usable`` is in seconds."""

    mount: str
    role: str
    owner: str
    ttl: timedelta | None
    request: Request | None = None
    wait_usable: float = 0.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """An issued credential: the only value that ever holds its secret."""

    lease: Lease
    secret: Secret
    arn: str
    warnings: tuple[str, ...]
    usable: bool = False
