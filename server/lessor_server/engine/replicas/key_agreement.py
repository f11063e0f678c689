"""Agrees with the other replicas on the data key in use, so that each can read what the others write.

A new data key is first known by all replicas, and then used by each. A replica that has given no sign of
life for ``SILENT_SECONDS`` is not waited for: it uses no data key until its next sign, by which it learns of
the new one. What was sealed under an older key is sealed again when all use the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.engine.replica_ports import SILENT_SECONDS, Fleet, ReplicaStatus
from lessor_server.engine.sealing_ports import DataKeys
from lessor_server.engine.store_types import WrappedKey

POLL_SECONDS: Final = 0.2
ListKeys = Callable[[], Awaitable[list[WrappedKey]]]


class KeyAgreement:
    """The data keys of this replica among those of all."""

    def __init__(self, name: str, keys: DataKeys, list_keys: ListKeys, boot_us: Callable[[], int]) -> None:
        """Learn ``keys`` from ``list_keys`` as replica ``name``; ``boot_us`` is the boot-time clock."""
        self._name = name
        self._keys = keys
        self._list_keys = list_keys
        self._boot_us = boot_us
        self._signed_us = boot_us()
        self._fleet = Fleet(0, ())
        self._live: list[ReplicaStatus] = []
        """The replicas that are waited for."""
        keys.require_before_use(self._require_fresh)

    @property
    def known(self) -> str:
        """Return the id of the active data key as far as this replica knows it, or an empty text."""
        active = self._fleet.active_key or self.used  # at a start, all stored keys were read a moment ago
        return active if self._keys.knows(active) else ""

    @property
    def used(self) -> str:
        """Return the id of the data key in use."""
        return self._keys.active_id

    async def follow(self, fleet: Fleet, asked_us: int) -> bool:
        """Learn or use the active data key of ``fleet``, whose sign was given at ``asked_us``.

        Returns whether the others are waited for, or wait for this replica.
        """
        self._fleet, active = fleet, fleet.active_key
        self._live = [one for one in fleet.replicas if not one.is_silent(fleet.now_us)]
        if active == self.used and not self._others_differ(active):
            self._signed_us = asked_us
            return False
        if active and not self._keys.knows(active):
            try:
                await self._keys.learn(await self._list_keys())
            except StoreUnavailable:
                raise
            except LessorError:
                return True  # KMS does not answer this replica; it is asked again after the next sign
        if active and self._keys.knows(active) and self.is_known_to_others:
            self._keys.use(active)
        self._signed_us = asked_us
        return bool(active) and self._others_differ(active)

    def _others_differ(self, active: str) -> bool:
        """Return whether a replica does not know or does not use the active data key, by the table."""
        return any(one.known_key != active or one.used_key != active for one in self._live)

    @property
    def is_known_to_others(self) -> bool:
        """Return whether all other replicas know the active data key, if there is one."""
        active = self._fleet.active_key
        return not active or all(one.known_key == active for one in self._live if one.name != self._name)

    async def agree(self) -> str:
        """Wait until all replicas use the active data key, and the table says so; return its id.

        This replica is in the table too: one that was silent uses the new key at its first sign if, by the
        table, all others know it.
        """
        while True:
            active = next(key.id for key in await self._list_keys() if key.is_active)
            if self._fleet.active_key == active and all(one.used_key == active for one in self._live):
                return active
            await asyncio.sleep(POLL_SECONDS)

    def _require_fresh(self) -> None:
        """Raise ``StoreUnavailable`` if the others may not have waited for this replica."""
        if self._boot_us() - self._signed_us >= int(SILENT_SECONDS * 1e6):
            raise StoreUnavailable(
                "this server has not reached the database for too long to know the data key in use",
                retry_in=1.0,
            )
