"""The part of the store in memory that keeps it and the account in step, as ``adapters/sqlite/upkeep.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from lessor_server.domain.errors.base import AlreadyExists
from lessor_server.domain.lease import (
    CREATE_GRACE,
    TOMBSTONE_LIFE,
    Footprint,
    Lease,
    Orphan,
    State,
    Step,
    sources,
)
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import CredentialType
from lessor_server.engine.store_types import BulkRevocation, Progress, Range
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

    async def open_prefix(self, ids: Range) -> tuple[BulkRevocation, int]:
        """Put a range up for revocation; return it, and how many leases it takes in."""
        await self._before("open_prefix")
        prefix = BulkRevocation(ids, self.now())
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
        taken = self._opened(BulkRevocation(Range.of_mount(mount), self.now()))
        await self._at("disable done")
        return after, taken

    def _opened(self, prefix: BulkRevocation) -> int:
        if not self._is_open(prefix):
            self.open.append(prefix)
        return len(self._taken_in(prefix))

    def _is_open(self, prefix: BulkRevocation) -> bool:
        key = (prefix.ids.low, prefix.cutoff_us)
        return any((one.ids.low, one.cutoff_us) == key for one in self.open)

    async def prefixes(self) -> list[BulkRevocation]:
        """Return the ranges whose leases are not all REVOKING yet."""
        await self._before("prefixes", reads=True)
        return sorted(self.open, key=lambda prefix: (prefix.cutoff_us, prefix.ids.low))

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
        gone = (prefix.ids.low, prefix.cutoff_us)
        self.open = [one for one in self.open if (one.ids.low, one.cutoff_us) != gone]
        await self._at("close_prefix done")

    async def progress(self, prefix: BulkRevocation) -> Progress:
        """Count what a range still holds."""
        await self._before("progress", reads=True)
        rows = self._taken_in(prefix)
        failed = 0 if self._is_open(prefix) else sum(bool(row.lease.last_error) for row in rows)
        gone = sum(row.gone_us > prefix.cutoff_us and takes(prefix, row.lease) for row in self.rows.values())
        return Progress(len(rows), failed, gone)

    async def abandon(self, ids: Range, limit: int, *, live: bool) -> list[str]:
        """Turn some leases of a range to ABANDONED, ``live`` ones too; return their ids."""
        await self._before("abandon")
        found = [self.rows[lease_id].lease for lease_id in sorted(self.rows) if ids.covers(lease_id)]
        ended = [one for one in found if live or one.state_at(self.now()) is State.REVOKING]
        fit = (one for one in ended if one.state in sources(Step.ABANDON) and not one.is_session)
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
            self.rows[orphan.id] = Row(_adopted(orphan, self.now()), "", timedelta(0))
        await self._at("adopt done")
        return new

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        """Drop tombstones that a complete listing did not show, and old enough."""
        await self._before("purge_tombstones")
        old_us, grace_us = self.now() - us(TOMBSTONE_LIFE), us(CREATE_GRACE)
        buried = [
            lease_id
            for lease_id, row in self.rows.items()
            if row.lease.state is State.GONE
            and not row.lease.is_session
            and row.lease.footprint.account == account
            and row.gone_us <= min(old_us, listed_us)
            and row.lease.last_create_us <= listed_us - grace_us
        ]
        for lease_id in buried:
            del self.rows[lease_id]
        await self._at("bury done")
        return len(buried)

    async def purge_sessions(self) -> int:
        """Drop the tombstones of sessions that are long over."""
        await self._before("purge_sessions")
        old_us = self.now() - us(TOMBSTONE_LIFE)
        gone = [row for row in self.rows.values() if row.lease.is_session and row.lease.state is State.GONE]
        buried = [row.lease.id for row in gone if max(row.gone_us, row.lease.max_expires_us) <= old_us]
        for lease_id in buried:
            del self.rows[lease_id]
        await self._at("bury_sessions done")
        return len(buried)

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

    async def drift_us(self) -> int:
        """Return how far the machine's wall clock is ahead of the service's time."""
        return self._clock.wall_us() - self.now()

    async def first_start(self) -> bool:
        """Return whether the store had never been used before this start."""
        return self._first_start

    async def get_expiry_hold(self) -> str:
        """Return why expiries are held across starts, or an empty text."""
        await self._before("get_expiry_hold", reads=True)
        return self._why_held

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

    async def unreadable_rows(self) -> list[str]:
        """Return none: what is in memory can be read."""
        return []

    async def backup(self, path: str) -> tuple[str, int]:
        """Note that a copy was asked for; there is no file, and its size is the number of rows."""
        await self._before("backup", reads=True)
        if path in self.backups:
            raise AlreadyExists("file", path)
        self.backups.append(path)
        return path, len(self.rows)


def _adopted(orphan: Orphan, now: int) -> Lease:
    found = orphan.footprint
    return Lease(
        id=orphan.id,
        mount=orphan.mount,
        role=orphan.role,
        credential_type=CredentialType.IAM_USER,
        owner="",
        state=State.REVOKING,
        generation=1,
        footprint=Footprint(found.account, found.user_name, found.user_path),
        access_key_id="",
        ttl=timedelta(0),
        created_us=now,
        issue_us=0,
        last_renewal_us=0,
        expires_us=0,
        max_expires_us=0,
        due_us=now,
        attempts=0,
        looks=0,
        last_error="adopted by a reconcile run",
        last_create_us=now,
        request=None,
        undelivered=False,
    )
