"""Those who watch what happens to leases: each has a queue of its own, and nobody waits for a slow one.

Watchers live in memory alone: who watches learns what happens from now on, in this process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Self

from lessor_server.domain.errors.base import FellBehind
from lessor_server.domain.events import Event, Expiring, Issued, Renewed, RevocationFailed, Revoked, Stuck
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.ports import Observer

QUEUE = 4096
"""Happenings that may wait for a watcher; one more, and it has fallen behind."""


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
    """What happened to a lease and when, by the store's clock; ``error`` says why an attempt failed."""

    kind: LeaseEventKind
    lease_id: str
    at_us: int
    error: str = ""


class Watch:
    """What a watcher has not read yet, of the leases that it watches; each step of an iteration takes one."""

    def __init__(self, ids: IdRange) -> None:
        """Watch the leases in ``ids``."""
        self.ids = ids
        self.fell_behind = False
        self._happenings: deque[LeaseEvent] = deque()
        self._filled = asyncio.Event()

    def put(self, happening: LeaseEvent) -> None:
        """Add a happening; drop them all where there is no room, since a gap would be a lie."""
        if len(self._happenings) >= QUEUE:
            self.fell_behind = True
            self._happenings.clear()
        else:
            self._happenings.append(happening)
        self._filled.set()

    def __aiter__(self) -> Self:
        """Return the watch, which only its reader ends."""
        return self

    async def __anext__(self) -> LeaseEvent:
        """Return the oldest happening, waiting for it; raise ``FellBehind`` where some were dropped."""
        while not self._happenings:
            if self.fell_behind:
                raise FellBehind(f"more than {QUEUE} events waited for this watcher")
            self._filled.clear()
            await self._filled.wait()
        return self._happenings.popleft()


class LeaseEventBroker:
    """Hands each event of a lease to those who watch its id; an observer, so it never waits or raises."""

    def __init__(self, now: Callable[[], int]) -> None:
        """Begin with nobody watching; ``now`` is the store's clock."""
        self._now = now
        self._watches: dict[Watch, None] = {}

    def __len__(self) -> int:
        """Count those who watch."""
        return len(self._watches)

    def __call__(self, event: Event) -> None:
        """Hand ``event`` to the watchers of its lease, if it is one for watchers."""
        told = _shown(event)
        if told is None or not self._watches:
            return
        kind, lease_id, error = told
        happening = LeaseEvent(kind, lease_id, self._now(), error)
        for watch in [one for one in self._watches if one.ids.covers(lease_id)]:
            watch.put(happening)
            if watch.fell_behind:
                del self._watches[watch]

    def beside(self, notify: Observer) -> Observer:
        """Return an observer that calls ``notify`` and then the watchers."""

        def both(event: Event) -> None:
            notify(event)
            self(event)

        return both

    @contextmanager
    def watch(self, ids: IdRange) -> Iterator[Watch]:
        """Give what happens to the leases in ``ids`` while the block lasts, from its first line on."""
        watch = Watch(ids)
        self._watches[watch] = None
        try:
            yield watch
        finally:
            self._watches.pop(watch, None)


def _shown(event: Event) -> tuple[LeaseEventKind, str, str] | None:
    """Return what a watcher gets of an event: kind, lease id, error; None if it is not about a lease."""
    match event:
        case Issued():
            return LeaseEventKind.ISSUED, event.lease_id, ""
        case Renewed():
            return LeaseEventKind.RENEWED, event.lease_id, ""
        case Expiring():
            return LeaseEventKind.EXPIRING, event.lease_id, ""
        case Revoked():
            return LeaseEventKind.REVOKED, event.lease_id, ""
        case RevocationFailed():
            return LeaseEventKind.FAILED, event.lease_id, event.error
        case Stuck():
            return LeaseEventKind.STUCK, event.lease_id, event.error
        case _:
            return None
