"""The rotation of root keys, for operators and for SetRoot."""

from __future__ import annotations

import asyncio

from lessor_server.domain.errors.base import InternalError, LessorError, StoreUnavailable
from lessor_server.domain.errors.preconditions import RootKeyRotatedAway, StaticUserTaken
from lessor_server.domain.rotation import Rotation, root_subject
from lessor_server.domain.schedule import NEVER
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.paging import iter_mount_names
from lessor_server.engine.ports import Store
from lessor_server.engine.rotation.key_owner import require_enabled
from lessor_server.engine.rotation.rotation_run import Goal, RotationOrder
from lessor_server.engine.rotation.rotator import FULL_SCAN_SECONDS, RETRY_SECONDS, Rotator
from lessor_server.engine.supervisor import Supervisor


class RootKeys:
    """Rotates root keys on demand, and keeps their schedules."""

    def __init__(self, store: Store, roots: Roots, rotator: Rotator, supervisor: Supervisor) -> None:
        """Rotate by ``rotator``."""
        self._store = store
        self._roots = roots
        self._rotator = rotator
        self._supervisor = supervisor

    async def run(self) -> None:
        """Complete a SetRoot of a process that died between its two commits; then end."""
        while True:
            try:
                if await self._align_all():
                    return
                await asyncio.sleep(FULL_SCAN_SECONDS)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def _align_all(self) -> bool:
        """Align each mount's rotation with its root; return whether none failed unexpectedly."""
        whole = True
        async for mount in iter_mount_names(self._store):
            try:
                with self._supervisor.unit(f"align the rotation of {mount}"):
                    await self.align(mount)
            except StoreUnavailable:
                raise
            except InternalError:
                whole = False
            except LessorError:
                continue  # no usable root: there is nothing to rotate
        return whole

    async def rotate(self, mount: str, by: str, *, delete_other_key: bool) -> str:
        """Replace a root's access key and return the new one's id once it is in use.

        Raises:
            NotFound, MountDisabling, RootNotSet, RootNotRotatable, KeyLimit: It cannot be rotated now.
            KeyNotAccepted, AwsUnavailable: The old key stays in use.
            Aborted: The root was set again since.
        """
        await require_enabled(self._store, mount)
        await self._roots.get(mount)
        subject = root_subject(mount)
        order = RotationOrder(Goal.ROTATE, delete_other_key=delete_other_key, new=Rotation(subject), by=by)
        return (await self._rotator.ask(subject, order)).current

    async def align(self, mount: str) -> None:
        """Schedule the next rotation by the root's config; call this after each change of a root."""
        schedule = (await self._roots.get(mount)).config.rotation
        row = await self._store.get_rotation(root_subject(mount))
        if schedule != (row.schedule if row else NEVER):
            await self._rotator.align(root_subject(mount))

    async def require_free(self, access_key: str) -> None:
        """Refuse a key for a root if a rotation has deleted it, or will.

        Raises:
            RootKeyRotatedAway: It was the key of some mount's root until a rotation replaced it.
            StaticUserTaken: It is a static role's.
        """
        replaced = await self._store.find_replacing_rotation(access_key)
        if replaced is not None:
            message = f"key {access_key} was that of {replaced.title}, and was rotated away"
            raise RootKeyRotatedAway(message, subject=replaced.mount)
        role = await self._store.find_static_holder(access_key, "")
        if role is not None:
            raise StaticUserTaken(role.user_name, role.title)
