"""Subscriptions to lease events: each has its own bounded queue, so a slow reader delays no other.

They exist only in memory: a subscriber gets the events from now on, of this process and, by the relay, of
other replicas.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Self

from lessor_server.domain.errors.base import FellBehind
from lessor_server.domain.events import Event, Expiring, Issued, Renewed, RevocationFailed, Revoked, Stuck
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.ports import Observer

QUEUE = 4096
"""The maximum number of unread events; with one more, the subscriber has fallen behind."""
MAX_SKEW_US = 100_000
"""How far the clocks of two replicas may differ for a watch to show all events after its begin."""
MAX_FOR_PEERS = 50_000
"""The maximum number of events that wait for the other replicas; the oldest are dropped."""


class LeaseEventKind(Enum):
    """What happened to a lease."""

    ISSUED = "ISSUED"
    RENEWED = "RENEWED"
    EXPIRING = "EXPIRING"
    REVOKED = "REVOKED"
    FAILED = "FAILED"
    STUCK = "STUCK"


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """An event of a lease, with the store's time; ``error`` says why an attempt failed."""

    kind: LeaseEventKind
    lease_id: str
    at_us: int
    error: str = ""


class Watch:
    """One caller's unread events of the leases that it watches; each step of an iteration removes one."""

    def __init__(self, ids: IdRange, only_owner: str | None = None, since_us: int = 0) -> None:
        """Watch the leases in ``ids``, or only those of one owner, from ``since_us`` on."""
        self.since_us = since_us
        self._ids = ids
        self._only_owner = only_owner
        self.fell_behind = False
        self._happenings: deque[LeaseEvent] = deque()
        self._filled = asyncio.Event()

    def covers(self, lease_id: str, owner: str) -> bool:
        """Return whether it watches a lease."""
        return self._only_owner in (None, owner) and self._ids.covers(lease_id)

    def put(self, happening: LeaseEvent) -> None:
        """Add an event; drop all if the queue is full, because a subscriber must not see a gap."""
        if len(self._happenings) >= QUEUE:
            self.fell_behind = True
            self._happenings.clear()
        else:
            self._happenings.append(happening)
        self._filled.set()

    def __aiter__(self) -> Self:
        """Return the subscription, which only its reader ends."""
        return self

    async def __anext__(self) -> LeaseEvent:
        """Wait for the oldest event and return it; raise ``FellBehind`` if some were dropped."""
        while not self._happenings:
            if self.fell_behind:
                raise FellBehind(f"more than {QUEUE} events waited for this watcher")
            self._filled.clear()
            await self._filled.wait()
        return self._happenings.popleft()


class LeaseEventBroker:
    """Sends each lease event to the subscribers of its lease; an observer, so it never waits or raises."""

    def __init__(self, now: Callable[[], int]) -> None:
        """Begin without subscribers; ``now`` is the store's clock."""
        self.now = now
        self._watches: dict[Watch, None] = {}
        self._for_peers: deque[tuple[LeaseEvent, str]] | None = None
        self.wake = asyncio.Event()
        """Set when there is an event for the other replicas, or a new subscriber."""

    def __len__(self) -> int:
        """Return the number of subscribers."""
        return len(self._watches)

    def __call__(self, event: Event) -> None:
        """Send ``event`` to the subscribers of its lease, if it is a lease event."""
        if not self._watches and self._for_peers is None:
            return
        shown = _shown(event)
        if shown is None:
            return
        kind, lease_id, owner, error = shown
        happening = LeaseEvent(kind, lease_id, self.now(), error)
        if self._for_peers is not None:
            self._for_peers.append((happening, owner))
            self.wake.set()
        self.publish(happening, owner)

    def publish(self, happening: LeaseEvent, owner: str) -> None:
        """Send an event, of this process or another, to the subscribers of its lease."""
        for watch in [one for one in self._watches if one.covers(happening.lease_id, owner)]:
            if happening.at_us >= watch.since_us:
                watch.put(happening)
            if watch.fell_behind:
                del self._watches[watch]

    def keep_for_peers(self) -> None:
        """Keep the events from now on until ``drop_for_peers``."""
        if self._for_peers is None:
            self._for_peers = deque(maxlen=MAX_FOR_PEERS)

    def list_for_peers(self, limit: int) -> list[tuple[LeaseEvent, str]]:
        """Return the oldest kept events, each with the owner of its lease."""
        return list(islice(self._for_peers or (), limit))

    def drop_for_peers(self, count: int) -> None:
        """Drop the oldest kept events."""
        kept = self._for_peers or deque()
        for _ in range(min(len(kept), count)):
            kept.popleft()

    def forget_for_peers(self, seconds: float) -> None:
        """Drop the kept events that are older than this."""
        until_us = self.now() - int(seconds * 1e6)
        while self._for_peers and self._for_peers[0][0].at_us < until_us:
            self._for_peers.popleft()

    def beside(self, notify: Observer) -> Observer:
        """Return an observer that calls ``notify`` and then informs the subscribers."""

        def both(event: Event) -> None:
            notify(event)
            self(event)

        return both

    @contextmanager
    def watch(self, ids: IdRange, only_owner: str | None = None) -> Iterator[Watch]:
        """Yield a subscription to the leases in ``ids``, which lasts while the block runs.

        With ``only_owner`` it has only the events of that owner's leases.
        """
        watch = Watch(ids, only_owner, self.now() - MAX_SKEW_US)
        self._watches[watch] = None
        self.wake.set()
        try:
            yield watch
        finally:
            self._watches.pop(watch, None)


def _shown(event: Event) -> tuple[LeaseEventKind, str, str, str] | None:
    """Return kind, lease id, owner and error of an event for subscribers; None if it is not about a lease."""
    match event:
        case Issued():
            return LeaseEventKind.ISSUED, event.lease_id, event.owner, ""
        case Renewed():
            return LeaseEventKind.RENEWED, event.lease_id, event.owner, ""
        case Expiring():
            return LeaseEventKind.EXPIRING, event.lease_id, event.owner, ""
        case Revoked():
            return LeaseEventKind.REVOKED, event.lease_id, event.owner, ""
        case RevocationFailed():
            return LeaseEventKind.FAILED, event.lease_id, event.owner, event.error
        case Stuck():
            return LeaseEventKind.STUCK, event.lease_id, event.owner, event.error
        case _:
            return None
