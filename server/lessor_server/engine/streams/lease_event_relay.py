"""Exchanges lease events with the other replicas, so that a watch of one shows what happens on all.

The events of this process are added to the store twice a second, in one commit, if there are other replicas.
While somebody watches here, those of the others are read as often. An event of a process that is killed
within that time may be missing in the watches of the others, as its own watchers miss it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.engine.replica_ports import ReplicaStore, SharedEvent
from lessor_server.engine.streams.lease_events import LeaseEvent, LeaseEventBroker, LeaseEventKind

EXCHANGE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
MAX_ADDED: Final = 2000
"""The most events that one commit adds."""
MAX_READ: Final = 1000
UNKNOWN_SECONDS: Final = 10.0
"""After so long at most, a replica knows of one that has started."""


class LeaseEventRelay:
    """Adds the events of this replica to the store, and shows those of the others."""

    def __init__(
        self, store: ReplicaStore, name: str, broker: LeaseEventBroker, has_peers: Callable[[], bool]
    ) -> None:
        """Exchange the events of ``broker`` as replica ``name``, if it ``has_peers``."""
        self._store = store
        self._name = name
        self._broker = broker
        self._has_peers = has_peers
        self._after = -1
        """The number of the last event that was read; -1 while nobody watches."""

    async def run(self) -> None:
        """Exchange events until cancelled."""
        self._broker.keep_for_peers()
        while True:
            try:
                await self._exchange()
                await asyncio.sleep(EXCHANGE_SECONDS)
                if not len(self._broker) and not self._broker.list_for_peers(1):
                    await self._broker.wake.wait()
                self._broker.wake.clear()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def _exchange(self) -> None:
        if not self._has_peers():
            self._broker.forget_for_peers(UNKNOWN_SECONDS)
            return
        while events := self._broker.list_for_peers(MAX_ADDED):
            await self._store.append_events(self._name, [_shared(*one) for one in events])
            self._broker.drop_for_peers(len(events))
        if not len(self._broker):
            self._after = -1
            return
        if self._after < 0:  # events come in the order of their commits, and some commits are late
            before_us = self._broker.now() - int(UNKNOWN_SECONDS * 1e6)
            self._after = await self._store.find_last_event(before_us)
        await self._read()

    async def _read(self) -> None:
        while True:
            found = await self._store.list_events(self._after, self._name, MAX_READ)
            for number, event in found:
                self._after = number
                happening = LeaseEvent(LeaseEventKind(event.kind), event.lease_id, event.at_us, event.error)
                self._broker.publish(happening, event.owner)
            if len(found) < MAX_READ:
                return


def _shared(happening: LeaseEvent, owner: str) -> SharedEvent:
    return SharedEvent(happening.kind.value, happening.lease_id, owner, happening.at_us, happening.error)
