"""Which keys a rotation may take away: those that nobody works with, and those that only it can have made."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from lessor_server.domain.errors.preconditions import KeyLimit
from lessor_server.domain.events import LostKeyDeleted
from lessor_server.engine.rotation.claim import RotationClaim
from lessor_server.engine.rotation.key_owner import reason_key_in_use
from lessor_server.engine.rotation.order import RotationDeps
from lessor_server.engine.rotation.user_keys import UserKeys

LOOK_SECONDS: Final = (1.0, 2.0, 4.0)
"""Waits before the looks for a lost key: a listing may be some seconds old."""


class KeyRemoval:
    """Deletes keys of one rotation's user."""

    def __init__(self, tools: RotationDeps, held: RotationClaim, keys: UserKeys, *, any_key: bool) -> None:
        """Delete by way of ``keys``; with ``any_key`` a key of somebody may be taken for a lost one."""
        self._tools = tools
        self._held = held
        self._keys = keys
        self._any_key = any_key

    async def delete(self, key_id: str) -> None:
        """Delete a key, unless some mount or another static role works with it."""
        await self.require_unused(key_id)
        await self._keys.delete(self._held.now, key_id)

    async def require_unused(self, key_id: str) -> None:
        """Raise ``RootKeyInUse`` or ``StaticKeyInUse`` where somebody else works with a key."""
        kept = await reason_key_in_use(self._tools.store, self._tools.roots, key_id, self._held.now.subject)
        if kept is not None:
            raise kept

    async def find_lost(self) -> None:
        """Look a few times for the key that was made without an answer, and delete it."""
        for seconds in LOOK_SECONDS:
            await asyncio.sleep(seconds)
            if await self.look():
                return

    async def look(self) -> str:
        """Look once; return the id of the key that was found and deleted, empty where there is none."""
        if not await self._keys.same_user(self._held.now):
            return ""
        return await self.delete_lost(await self._keys.listed(self._held.now))

    async def delete_lost(self, listed: tuple[str, ...]) -> str:
        """Delete the one key that can only be ours; return its id, empty where there is none.

        With two, nobody knows which is ours, so none is deleted unless others may be deleted anyway.
        """
        row, tools = self._held.now, self._tools
        lost = [
            key_id
            for key_id in row.lost(listed)
            if await reason_key_in_use(tools.store, tools.roots, key_id, row.subject) is None
        ]
        if len(lost) > 1 and not self._any_key:
            raise KeyLimit(row.user_name, tuple(lost))
        for key_id in lost:
            await self._keys.delete(row, key_id)
            tools.notify(LostKeyDeleted(row.subject, key_id))
            self._held.now = replace(self._held.now, keys_before=(*self._held.now.keys_before, key_id))
        return lost[0] if lost else ""
