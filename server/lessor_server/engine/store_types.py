"""Arguments and results of the store's methods, other than leases and configuration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lessor_server.domain.lease import Lease, State
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open range of ids, ``low <= id < high``; both empty means all."""

    low: str = ""
    high: str = ""

    @classmethod
    def of_mount(cls, mount: str) -> Range:
        """Return the range of all leases of a mount."""
        return cls(f"{mount}/", f"{mount}0")  # "0" follows "/"

    def covers(self, text: str) -> bool:
        """Return whether ``text`` lies in the range."""
        return self.low <= text and (not self.high or text < self.high)


EVERYTHING = Range()


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
class RequestKey:
    """Whose request with which id may have been made before."""

    owner: str
    request_id: str


@dataclass(frozen=True, slots=True)
class BulkRevocation:
    """A bulk revocation of a range of leases: those begun by ``cutoff_us``."""

    ids: Range
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
