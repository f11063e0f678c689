"""Disables mounts: revokes every lease, deletes the keys of static roles, then deletes the mount."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import LessorError, NotFound, StoreUnavailable
from lessor_server.domain.events import BY_CLOCK, KeyLeft, MountDisabled, MountRemoved
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.rotation import Phase, Rotation
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.paging import iter_mounts
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.revocation.bulk import Prefixes
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.engine.waiting import wait_for

POLL_SECONDS, IDLE_SECONDS = 1.0, 60.0

MAX_CONCURRENT: Final = 8
"""Static roles of disabled mounts whose keys are deleted at the same time."""


@dataclass(frozen=True, slots=True)
class Disabling:
    """A mount that is being removed, and how many leases it still has."""

    mount: Mount
    leases_left: int


class MountRemover:
    """Disables and removes mounts."""

    def __init__(
        self,
        store: Store,
        roots: Roots,
        prefixes: Prefixes,
        static_roles: StaticRoles,
        expiry: ExpiryHold,
        work: BackgroundTasks,
        notify: Observer,
    ) -> None:
        """Revoke leases with ``prefixes`` and delete ``static_roles`` in ``work``; ``roots`` cache roots.

        While ``expiry`` is held, only static roles of mounts that callers of this process disabled are
        deleted: with a restored store, newer keys would look like lost ones.
        """
        self._store = store
        self._roots = roots
        self._prefixes = prefixes
        self._static = static_roles
        self._expiry = expiry
        self._work = work
        self._notify = notify
        self._reported: set[KeyLeft] = set()
        self._by: dict[str, str] = {}
        """The caller that disabled a mount, if it called this process."""
        self._deleting: set[str] = set()
        """Subjects of the static roles that are being deleted."""
        self._wake = asyncio.Event()
        self._wake.set()

    async def disable(self, name: str, *, force: bool, by: str) -> Disabling:
        """Refuse new leases from now on, and revoke every lease.

        The mount is durably DISABLING; ``run`` then deletes the static roles with their keys. With ``force``,
        for a root that no longer works, remaining leases are abandoned and their rows kept; static roles are
        forgotten, and the log names their keys.
        """
        disabled = await self._prefixes.disable(name, by)
        if disabled is None:
            raise NotFound("mount", name)
        self._notify(MountDisabled(name, by, force))
        self._by[name] = by
        mount, leases = disabled
        if force:
            await self._forget_static(name)
            leases = await self._prefixes.abandon(IdRange.of_mount(name), by, live=True)
        self._wake.set()
        return Disabling(mount, leases)

    async def run(self) -> None:
        """Remove disabled mounts that have no live lease left, until cancelled."""
        while True:
            await wait_for(self._wake, POLL_SECONDS if await self._remove() else IDLE_SECONDS)
            self._wake.clear()

    async def _forget_static(self, mount: str) -> None:
        """Forget the static roles of a mount, and report each key that stays on AWS."""
        for row in await self._store.list_static_of_disabled():
            if row.mount != mount:
                continue
            unknown = ("",) if row.phase is Phase.INTENDED or row.last_check_us else ()
            for key_id in (*row.made_keys, *unknown):
                self._report_left(row, key_id, row.last_error or "the mount was disabled with force")
        await self._store.forget_static(mount)  # after the reports, so that a kill loses no name

    async def _remove(self) -> bool:
        """Remove the mounts that can be removed; return whether some are left."""
        try:
            for left in await self._store.list_unfinished_of_removed_mounts():
                self._report_left(left, left.unneeded, left.last_error)
            disabled = [
                mount.name async for mount in iter_mounts(self._store) if mount.state is MountState.DISABLING
            ]
            if not disabled:
                return False
            self._delete_static(await self._store.list_static_of_disabled())
            removed = await self._store.remove_disabled()
        except StoreUnavailable:
            return True
        for name in removed:
            self._roots.forget(name)
            self._by.pop(name, None)
            self._notify(MountRemoved(name))
        return not set(disabled) <= set(removed)

    def _delete_static(self, rows: list[Rotation]) -> None:
        """Start to delete static roles of disabled mounts; the rotator retries those that are ``ending``."""
        asked = [row for row in rows if row.mount in self._by or not self._expiry.held]
        waiting = [row for row in asked if not row.ending and row.subject not in self._deleting]
        for row in waiting[: MAX_CONCURRENT - len(self._deleting)]:
            self._deleting.add(row.subject)
            self._work.start(self._delete_one(row))

    async def _delete_one(self, row: Rotation) -> None:
        try:
            await self._static.delete(row.mount, row.name, self._by.get(row.mount, BY_CLOCK))
            self._wake.set()
        except LessorError:
            pass  # the row is still there: the next pass retries, once it is due
        finally:
            self._deleting.discard(row.subject)

    def _report_left(self, row: Rotation, key_id: str, error: str) -> None:
        """Report, once, a key that will be forgotten with its mount."""
        left = KeyLeft(row.subject, row.user_name, key_id, error)
        if left not in self._reported:
            self._reported.add(left)
            self._notify(left)
