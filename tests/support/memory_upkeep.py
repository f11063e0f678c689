"""The part of the store in memory that keeps it and the account in step, as ``adapters/sql/upkeep.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lessor_server.domain import lease as steps
from lessor_server.domain.errors.base import AlreadyExists
from lessor_server.domain.lease import (
    CREATE_GRACE,
    TOMBSTONE_LIFE,
    Lease,
    LeaseStep,
    Orphan,
    State,
    sources,
)
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import Mount, MountState
from lessor_server.engine.store_types import BulkRevocation, LeaseCount, LeaseGauges, Progress, StoreStatus
from tests.support.memory_config import At
from tests.support.memory_rows import Clock, MemoryRows, Row, takes, us


class MemoryUpkeep(MemoryRows):
    """Ranges of leases, tombstones, the clock and the hold."""

    def __init__(self, clock: Clock, at: At, instance: str) -> None:
        """Begin with nothing held."""
        super().__init__(clock, at, instance)
        self._why_held = ""
        self.backups: list[str] = []

    # --- prefixes ------------------------------------------------------------------------------------------

    async def measure_leases(self) -> LeaseGauges:
        """Return the numbers for metrics."""
        await self._before("measure_leases", reads=True)
        now, leases = self.now(), [row.lease for row in self.rows.values()]
        counts = Counter((one.mount, one.role, one.state_at(now)) for one in leases)
        due = [row.lease.due_us for row in self.rows.values() if row.live and row.lease.due_us <= now]
        return LeaseGauges(
            tuple(LeaseCount(*key, n) for key, n in counts.items() if key[2] is not State.GONE),
            tuple(sorted(self.mounts)),
            sum(lease.stuck for lease in leases),
            min(due, default=0),
        )

    async def open_prefix(self, ids: IdRange, owner: str = "") -> tuple[BulkRevocation, int]:
        """Put a range up for revocation; return it, and how many leases it takes in."""
        await self._before("open_prefix")
        prefix = BulkRevocation(ids, self.now(), owner)
        taken = self._opened(prefix)
        await self._at("open_prefix done")
        return prefix, taken

    async def disable(self, mount: str) -> tuple[Mount, int] | None:
        """Let a mount take no new lease and put all of its leases up for revocation."""
        await self._before("disable")
        before = self.mounts.get(mount)
        if before is None:
            return None
        after = self.mounts[mount] = replace(before, state=MountState.DISABLING)
        taken = self._opened(BulkRevocation(IdRange.of_mount(mount), self.now()))
        await self._at("disable done")
        return after, taken

    def _opened(self, prefix: BulkRevocation) -> int:
        if not self._is_open(prefix):
            self.open.append(prefix)
        return len(self._taken_in(prefix))

    def _is_open(self, prefix: BulkRevocation) -> bool:
        return any(_key(one) == _key(prefix) for one in self.open)

    async def prefixes(self) -> list[BulkRevocation]:
        """Return the ranges whose leases are not all REVOKING yet."""
        await self._before("prefixes", reads=True)
        return sorted(self.open, key=lambda prefix: (prefix.cutoff_us, prefix.ids.low, prefix.owner))

    async def mark_range_revoking(self, prefix: BulkRevocation, after: str, limit: int) -> list[str]:
        """Make the next of a range's leases due immediately; return their ids, in order."""
        await self._before("mark_range_revoking")
        rows = [row for row in self._taken_in(prefix) if row.lease.id > after][:limit]
        for row in rows:
            if row.lease.state is State.REVOKING and row.claimed_by:
                self.rows[row.lease.id] = replace(row, lease=replace(row.lease, last_error=""))
            else:
                due_us = min(row.lease.due_us, self.now())
                self._put(row, state=State.REVOKING, due_us=due_us, last_error="")
        await self._at("put_up done")
        return [row.lease.id for row in rows]

    async def close_prefix(self, prefix: BulkRevocation) -> None:
        """Forget a range."""
        await self._before("close_prefix")
        self.open = [one for one in self.open if _key(one) != _key(prefix)]
        await self._at("close_prefix done")

    async def progress(self, prefix: BulkRevocation) -> Progress:
        """Count what a range still holds."""
        await self._before("progress", reads=True)
        rows = self._taken_in(prefix)
        failed = 0 if self._is_open(prefix) else sum(bool(row.lease.last_error) for row in rows)
        gone = sum(row.gone_us > prefix.cutoff_us and takes(prefix, row.lease) for row in self.rows.values())
        return Progress(len(rows), failed, gone)

    async def abandon(self, ids: IdRange, limit: int, *, live: bool) -> list[str]:
        """Turn some leases of a range to ABANDONED, ``live`` ones too; return their ids."""
        await self._before("abandon")
        found = [self.rows[lease_id].lease for lease_id in sorted(self.rows) if ids.covers(lease_id)]
        ended = [one for one in found if live or one.state_at(self.now()) is State.REVOKING]
        fit = (one for one in ended if one.state in sources(LeaseStep.ABANDON) and not one.is_session)
        rows = [self.rows[one.id] for one in fit][:limit]
        for row in rows:
            self._put(row, state=State.ABANDONED, due_us=0)
        await self._at("abandon done")
        return [row.lease.id for row in rows]

    # --- sweeps --------------------------------------------------------------------------------------------

    async def leases_by_user_name(self, user_names: Sequence[str]) -> dict[str, Lease | None]:
        """Return the leases of those users that have one."""
        await self._before("leases_by_user_name", reads=True)
        leases = (row.lease for row in self.rows.values() if not row.lease.is_session)
        return {one.footprint.user_name: one for one in leases if one.footprint.user_name in user_names}

    async def adopt(self, orphan: Orphan) -> bool:
        """Store a REVOKING row, due immediately, for a user that had none."""
        await self._before("adopt")
        new = orphan.id not in self.rows
        if new:
            self.rows[orphan.id] = Row(steps.adopt(orphan, self.now()))
        await self._at("adopt done")
        return new

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        """Drop tombstones that a complete listing did not show, or those of sessions that are long over."""
        await self._before("purge_tombstones")
        old_us, grace_us = self.now() - us(TOMBSTONE_LIFE), us(CREATE_GRACE)

        def is_over(row: Row) -> bool:
            lease = row.lease
            if not account:
                return lease.is_session and max(row.gone_us, lease.max_expires_us) <= old_us
            listed = row.gone_us <= min(old_us, listed_us) and lease.last_create_us <= listed_us - grace_us
            return listed and lease.footprint.account == account and not lease.is_session

        gone = [row for row in self.rows.values() if row.lease.state is State.GONE]
        purged = [row.lease.id for row in gone if is_over(row)]
        for lease_id in purged:
            del self.rows[lease_id]
        await self._at("purge_tombstones done")
        return len(purged)

    async def remove_disabled(self) -> list[str]:
        """Remove the disabling mounts that have no live lease left, with their roots and roles."""
        await self._before("remove_disabled")
        removed = self._removable()
        for name in removed:
            self._forget_rotations(name)
            del self.mounts[name]
            self.roots.pop(name, None)
            self.roles = {key: role for key, role in self.roles.items() if key[0] != name}
        await self._at("remove_disabled done")
        return removed

    def _is_disabling(self, mount: str) -> bool:
        there = self.mounts.get(mount)
        return there is not None and there.state is MountState.DISABLING

    def _removable(self) -> list[str]:
        in_use = {row.lease.mount for row in self.rows.values() if row.live}
        disabling = [mount.name for mount in self.mounts.values() if mount.state is MountState.DISABLING]
        return [name for name in disabling if name not in in_use and not self._unsettled(name)]

    # --- the clock, and the store as a whole ---------------------------------------------------------------

    def drift_us(self) -> int:
        """Return how far the machine's wall clock is ahead of the service's time."""
        return self._clock.wall_us() - self.now()

    async def status(self) -> StoreStatus:
        """Return the state of the store as a whole."""
        await self._before("status", reads=True)
        return StoreStatus(self._instance, 1, self._first_start, self._why_held)

    async def set_expiry_hold(self, why: str) -> None:
        """Keep the hold, or end it with an empty text."""
        await self._before("set_expiry_hold")
        self._why_held = why
        await self._at("set_expiry_hold done")

    async def lower_clock(self) -> None:
        """Take the wall clock for the service's time."""
        await self._before("lower_clock")
        self._offset_us = self._clock.wall_us() - self._clock.boot_us()
        now = self.now()
        for lease_id, row in self.rows.items():
            if row.lease.created_us > now:
                self.rows[lease_id] = replace(row, lease=replace(row.lease, created_us=now))
        await self._at("lower_clock done")

    async def backup(self, path: str) -> tuple[str, int]:
        """Note that a copy was asked for; there is no file, and its size is the number of rows."""
        await self._before("backup", reads=True)
        if path in self.backups:
            raise AlreadyExists("file", path)
        self.backups.append(path)
        return path, len(self.rows)


def _key(prefix: BulkRevocation) -> tuple[str, int, str]:
    """Return what tells a prefix from others."""
    return prefix.ids.low, prefix.cutoff_us, prefix.owner
