"""Disables mounts: no new leases, every lease revoked, and the mount gone when none is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lessor_server.domain.errors import NotFound, StoreUnavailable
from lessor_server.domain.events import KeyLeft, MountDisabled, MountRemoved
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.rotation import Rotation
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.prefixes import Prefixes
from lessor_server.engine.roots import Roots
from lessor_server.engine.stored import Range
from lessor_server.engine.walks import every_mount

LOOK_SECONDS, IDLE_SECONDS = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Disabling:
    """A mount on its way out, and how many leases it still has."""

    mount: Mount
    leases_left: int


class Disabler:
    """Takes mounts out of service."""

    def __init__(self, store: Store, roots: Roots, prefixes: Prefixes, notify: Observer) -> None:
        """Change ``store``; leases go by way of ``prefixes``, and ``roots`` forget a mount that is gone."""
        self._store = store
        self._roots = roots
        self._prefixes = prefixes
        self._notify = notify
        self._told: set[KeyLeft] = set()
        self._wake = asyncio.Event()
        self._wake.set()

    async def disable(self, name: str, *, force: bool, by: str) -> Disabling:
        """Refuse new leases from now on and put every lease up for revocation.

        With ``force``, for a root that is dead: what is left is abandoned, and its rows are kept.
        """
        disabled = await self._prefixes.disable(name, by)
        if disabled is None:
            raise NotFound("mount", name)
        self._notify(MountDisabled(name, by, force))
        mount, leases = disabled
        if force:
            leases = await self._prefixes.abandon(Range.of_mount(name), by, live=True)
        self._wake.set()
        return Disabling(mount, leases)

    async def run(self) -> None:
        """Remove disabled mounts that have no live lease left, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS if await self._remove() else IDLE_SECONDS):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                continue

    async def _remove(self) -> bool:
        """Remove what can be removed; tell whether mounts are left to remove."""
        try:
            for left in await self._store.left_behind():
                self._tell_left(left)
            for name in await self._store.remove_disabled():
                self._roots.forget(name)
                self._notify(MountRemoved(name))
            states = {mount.state async for mount in every_mount(self._store)}
        except StoreUnavailable:
            return True
        return MountState.DISABLING in states

    def _tell_left(self, row: Rotation) -> None:
        """Tell, once, of a key that will be forgotten with its mount."""
        left = KeyLeft(row.subject, row.user_name, row.unneeded, row.last_error)
        if left not in self._told:
            self._told.add(left)
            self._notify(left)
