"""Arguments and results of the store's methods, except leases and configuration."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot


def draw_etag(rng: random.Random) -> str:
    """Return the etag of a new version of a root or a role."""
    return f"{rng.getrandbits(64):016x}"


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The state of the store: its installation, its schema and its problems.

    ``instance_id`` has 16 characters, drawn when the database was created. ``schema_version`` is the number
    of the last migration. ``first_start`` is true if the database was not used before this start.
    """

    instance_id: str
    schema_version: int
    first_start: bool
    expiry_hold: str = ""
    """Why expiry is held across starts; empty if it is not."""
    unreadable_rows: tuple[str, ...] = ()
    """Rows that could not be read when they were last read, one line each."""
    tampered_rows: tuple[str, ...] = ()
    """Rows that were not as Lessor wrote them when they were last read."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is stored: encrypted under the key-encryption key that ``wrapped_by`` names.

    ``complete`` is a MAC under the key; it shows that all rows had MACs when the key was stored.
    """

    id: str
    wrapped: bytes
    wrapped_by: str
    is_active: bool
    complete: bytes


@dataclass(frozen=True, slots=True)
class LeaseCount:
    """The number of leases of one mount and role in one state."""

    mount: str
    role: str
    state: State
    count: int


@dataclass(frozen=True, slots=True)
class LeaseGauges:
    """Numbers for metrics: leases that are not GONE, the mounts, and how revocations stand.

    ``stuck`` revocations were refused ``STUCK_AFTER`` times or more. ``oldest_due_us`` is when the one that
    has been due for longest was due, 0 if none is due.
    """

    counts: tuple[LeaseCount, ...]
    mounts: tuple[str, ...]
    stuck: int
    oldest_due_us: int


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What an issue needs, read in one transaction; ``earlier`` is the lease that the same request id has."""

    mount: Mount | None
    root: StoredRoot | None
    role: Role | None
    earlier: Lease | None = None


@dataclass(frozen=True, slots=True)
class BulkRevocation:
    """A bulk revocation of the leases in a range that began at ``cutoff_us`` or before.

    With an ``owner`` it covers only the leases of that owner.
    """

    ids: IdRange
    cutoff_us: int
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a bulk revocation: live leases, how many of them failed since, and leases gone."""

    alive: int
    failed: int
    gone: int


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """Who claims rows, and for how long; if expiry is ``held``, ACTIVE rows are not claimed."""

    by: str
    span: timedelta
    held: bool = False
