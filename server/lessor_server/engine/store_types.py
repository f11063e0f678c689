"""Arguments and results of the store's methods, other than leases and configuration."""

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
    """The store as a whole: which installation it serves, and what is wrong.

    ``instance_id`` are 16 characters drawn when the database was created; ``schema_version`` is the last
    migration applied; ``first_start`` says that it had not been used before this start.
    """

    instance_id: str
    schema_version: int
    first_start: bool
    expiry_hold: str = ""
    """Why expiry is held across starts, or empty."""
    unreadable_rows: tuple[str, ...] = ()
    """Rows that could not be read when they were last read, one line each."""


@dataclass(frozen=True, slots=True)
class LeaseCount:
    """How many leases of one mount and role are in one state."""

    mount: str
    role: str
    state: State
    count: int


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What an issue stands on, read at one instant; ``earlier`` is the lease of an earlier same request."""

    mount: Mount | None
    root: StoredRoot | None
    role: Role | None
    earlier: Lease | None = None


@dataclass(frozen=True, slots=True)
class BulkRevocation:
    """A bulk revocation of a range of leases: those begun by ``cutoff_us``."""

    ids: IdRange
    cutoff_us: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a range has come: rows still alive, those of them that failed since, and rows gone since."""

    alive: int
    failed: int
    gone: int


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """How rows are claimed: by whom, for how long; while expiries are ``held``, not the ACTIVE ones."""

    by: str
    span: timedelta
    held: bool = False
