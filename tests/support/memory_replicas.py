"""The part of the store in memory that several replicas share: who lives, and their shares of rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lessor_server.domain.lease import State
from lessor_server.domain.rate_shares import GrantedShare, ShareRequest, StoredShare, grant_share
from lessor_server.engine.replica_ports import (
    EVENT_SECONDS,
    FORGET_SECONDS,
    Fleet,
    ReplicaSign,
    ReplicaStatus,
    SharedEvent,
)
from tests.support.memory_config import At
from tests.support.memory_rows import Clock
from tests.support.memory_upkeep import MemoryUpkeep

_FORGET_US, _EVENT_US = int(FORGET_SECONDS * 1e6), int(EVENT_SECONDS * 1e6)


class MemoryReplicas(MemoryUpkeep):
    """Implements ``engine.replica_ports.ReplicaStore``."""

    def __init__(self, clock: Clock, at: At, instance: str) -> None:
        """Begin without a replica."""
        super().__init__(clock, at, instance)
        self.replicas: dict[str, ReplicaStatus] = {}
        self.shares: dict[tuple[str, str], StoredShare] = {}
        """By account and replica."""
        self.events: list[tuple[int, str, SharedEvent]] = []
        """Numbers, the replicas that added them, and what happened."""
        self._last_event = 0

    async def report_alive(self, sign: ReplicaSign) -> Fleet:
        """Store a sign of life, and grant shares."""
        await self._before("report_alive")
        now, name = self.now(), sign.name
        self._drop_old(now)
        status = ReplicaStatus(
            name,
            sign.version,
            now,
            sign.wall_us - now,
            sign.settings,
            self._shares_of(name) if self.shares else (),
            sign.known_key,
            sign.used_key,
        )
        self.replicas[name] = status
        granted = tuple([self._grant(name, asked, now) for asked in sign.shares])
        if granted:
            self.replicas[name] = replace(status, shares=self._shares_of(name))
        await self._at("report_alive done")
        active = next((key.id for key in self.data_keys if key.is_active), "")
        return Fleet(now, tuple([self.replicas[one] for one in sorted(self.replicas)]), granted, active)

    def _drop_old(self, now: int) -> None:
        """Drop replicas that were silent for long, shares that have ended, and old events."""
        for name in [name for name, one in self.replicas.items() if one.seen_us <= now - _FORGET_US]:
            del self.replicas[name]
        for account, name in [key for key, row in self.shares.items() if row.until_us <= now]:
            del self.shares[account, name]
            if name in self.replicas:
                self.replicas[name] = replace(self.replicas[name], shares=self._shares_of(name))
        if self.events:
            self.events = [one for one in self.events if one[2].at_us > now - _EVENT_US]

    def _grant(self, name: str, asked: ShareRequest, now: int) -> GrantedShare:
        live = [name for name, one in self.replicas.items() if not one.is_silent(now)]
        rows = [row for row in self.shares.values() if row.account == asked.account]
        self.shares[asked.account, name], share = grant_share(name, asked, rows, live, now)
        return share

    def _shares_of(self, name: str) -> tuple[StoredShare, ...]:
        """Return the shares of a replica, by account."""
        return tuple([row for (_, replica), row in sorted(self.shares.items()) if replica == name])

    async def remove_replica(self, name: str) -> None:
        """Delete a replica."""
        await self._before("remove_replica")
        self.replicas.pop(name, None)
        await self._at("remove_replica done")

    async def void_claims_of(self, names: Sequence[str]) -> int:
        """Void the claims of silent replicas on leases that they were revoking."""
        await self._before("void_claims_of")
        now = self.now()
        silent = {name for name in names if name in self.replicas and self.replicas[name].is_silent(now)}
        rows = [row for row in self.rows.values() if row.claimed_by in silent]
        claimed = [row for row in rows if row.lease.state is State.REVOKING]
        for row in claimed:
            self._put(row, state=State.REVOKING, due_us=min(row.lease.due_us, now))
        await self._at("void_claims_of done")
        return len(claimed)

    async def void_lost_claims(self, name: str, kept: Sequence[str]) -> int:
        """Void the claims of a replica on leases that it does not know of."""
        await self._before("void_lost_claims")
        rows = [row for row in self.rows.values() if row.claimed_by == name and row.lease.id not in kept]
        lost = [row for row in rows if row.lease.state is State.REVOKING]
        for row in lost:
            self._put(row, state=State.REVOKING, due_us=min(row.lease.due_us, self.now()))
        await self._at("void_lost_claims done")
        return len(lost)

    async def append_events(self, replica: str, events: Sequence[SharedEvent]) -> None:
        """Add events of one replica."""
        await self._before("append_events")
        for event in events:
            self._last_event += 1
            self.events.append((self._last_event, replica, event))
        await self._at("append_events done")

    async def find_last_event(self, before_us: int) -> int:
        """Return the number of the last event before an instant."""
        await self._before("find_last_event", reads=True)
        return max((number for number, _, event in self.events if event.at_us < before_us), default=0)

    async def list_events(self, after: int, without: str, limit: int) -> list[tuple[int, SharedEvent]]:
        """Return the next events of other replicas."""
        await self._before("list_events", reads=True)
        found = [(number, event) for number, by, event in self.events if number > after and by != without]
        return found[:limit]
