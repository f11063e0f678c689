"""The Protocol of a store that several replicas share, and the values of its methods.

A store of one process has none of this. Instants are microseconds since the epoch by the store's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lessor_server.domain.rate_shares import GrantedShare, ShareRequest, StoredShare

SILENT_SECONDS: Final = 20.0
"""A replica without a sign of life for so long loses its claims on revocations."""
_SILENT_US: Final = int(SILENT_SECONDS * 1e6)
FORGET_SECONDS: Final = 600.0
"""A replica without a sign of life for so long is no longer listed."""
EVENT_SECONDS: Final = 60.0
"""How long an event is kept for the watchers of other replicas."""


@dataclass(frozen=True, slots=True)
class ReplicaSign:
    """A sign of life: who the replica is, and the shares of rates that it asks for.

    ``wall_us`` is its machine's wall clock. ``settings`` are names of settings, each with a digest of its
    value.
    """

    name: str
    version: str
    wall_us: int
    settings: tuple[tuple[str, str], ...] = ()
    shares: tuple[ShareRequest, ...] = ()
    known_key: str = ""
    """The id of the active data key, if it is known here."""
    used_key: str = ""
    """The id of the data key that this replica seals with."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica as its peers see it; ``clock_ahead_us`` is its wall clock less the store's time."""

    name: str
    version: str
    seen_us: int
    clock_ahead_us: int
    settings: tuple[tuple[str, str], ...]
    shares: tuple[StoredShare, ...] = ()
    known_key: str = ""
    used_key: str = ""

    def is_silent(self, now_us: int) -> bool:
        """Return whether it has given no sign of life for ``SILENT_SECONDS``."""
        return self.seen_us <= now_us - _SILENT_US


@dataclass(frozen=True, slots=True)
class SharedEvent:
    """What happened to a lease on one replica, for the watchers of the others."""

    kind: str
    lease_id: str
    owner: str
    at_us: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All replicas at the instant ``now_us``, by name, and the shares that the asking one has now."""

    now_us: int
    replicas: tuple[ReplicaStatus, ...]
    granted: tuple[GrantedShare, ...] = ()
    active_key: str = ""
    """The id of the active data key in the store."""


class ReplicaStore(Protocol):
    """The table of replicas; each method is one transaction."""

    async def report_alive(self, sign: ReplicaSign) -> Fleet:
        """Store a sign of life, and grant each share that it asks for by ``rate_shares.grant_share``.

        No other replica's share of the same account changes meanwhile. Replicas that were silent for
        ``FORGET_SECONDS`` are deleted.
        """
        ...

    async def remove_replica(self, name: str) -> None:
        """Delete a replica that ends; its shares stay reserved until they are no longer valid."""
        ...

    async def void_claims_of(self, names: Sequence[str]) -> int:
        """Make the leases due that those of ``names`` claimed for revocation that are silent now.

        Returns how many. Claims on intents and rotations stay until they end.
        """
        ...

    async def void_lost_claims(self, name: str, kept: Sequence[str]) -> int:
        """Make the leases due that ``name`` claimed for revocation, except ``kept``; return how many.

        For a replica that did not get the answer to a claim, so that it does not know what it has claimed.
        """
        ...

    async def append_events(self, replica: str, events: Sequence[SharedEvent]) -> None:
        """Add events of one replica; their numbers are in the order of the commits."""
        ...

    async def find_last_event(self, before_us: int) -> int:
        """Return the number of the last event before an instant; 0 if there is none."""
        ...

    async def list_events(self, after: int, without: str, limit: int) -> list[tuple[int, SharedEvent]]:
        """Return events with numbers greater than ``after``, except those of one replica, by number."""
        ...
