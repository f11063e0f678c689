"""A mount: one enabled AWS engine, with its name, limits and lease defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from lessor_server.domain import durations
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.domain.lease_id import name_violations

DEFAULT_LEASE_TTL: Final = timedelta(hours=768)
DEFAULT_MAX_USERS: Final = 5_000
"""AWS's quota of IAM users in an account ("IAM and AWS STS quotas")."""
MAX_DESCRIPTION: Final = 1_000
RESERVED_NAMES: Final = frozenset({"auth", "cubbyhole", "identity", "sys"})
"""Vault's own first parts of paths: a rule on ``sys/*`` must not be one on the keys of a mount ``sys``."""


class MountState(Enum):
    """Whether a mount issues new leases."""

    ENABLED = "enabled"
    DISABLING = "disabling"


@dataclass(frozen=True, slots=True)
class Mount:
    """Hold one engine's limits; spans are whole seconds, ``created_us`` microseconds since the epoch.

    ``lease`` and ``lease_max`` are the lease defaults of IAM users, ``None`` if unset.
    """

    name: str
    description: str = ""
    default_lease_ttl: timedelta = DEFAULT_LEASE_TTL
    max_lease_ttl: timedelta = DEFAULT_LEASE_TTL
    max_users: int = DEFAULT_MAX_USERS
    lease: timedelta | None = None
    lease_max: timedelta | None = None
    state: MountState = MountState.ENABLED
    created_us: int = 0


def new_violations(mount: Mount) -> list[Violation]:
    """Return every violation of a mount that does not exist yet."""
    found = violations(mount)
    if mount.name in RESERVED_NAMES:
        found.append(Violation("mount", f"{shown(mount.name)} is reserved", "choose another name"))
    return found


def violations(mount: Mount) -> list[Violation]:
    """Return every violation of ``mount``; field paths are those of EnableMount and SetLeaseDefaults."""
    found = name_violations("mount", mount.name)
    if len(mount.description) > MAX_DESCRIPTION:
        problem = f"has {len(mount.description)} characters"
        found.append(Violation("description", problem, f"give at most {MAX_DESCRIPTION}"))
    for field, value in (
        ("default_lease_ttl", mount.default_lease_ttl),
        ("max_lease_ttl", mount.max_lease_ttl),
        ("lease", mount.lease),
        ("lease_max", mount.lease_max),
    ):
        found += durations.violations(field, value)
    longest = mount.max_lease_ttl
    found += durations.order_violations(
        "default_lease_ttl", mount.default_lease_ttl, longest, "max_lease_ttl"
    )
    found += durations.order_violations("lease", mount.lease, mount.lease_max or longest, "the longest lease")
    if mount.max_users < 1:
        found.append(Violation("max_users", f"{mount.max_users} is below 1", "give at least 1"))
    return found
