"""Static roles: existing IAM users, whose access keys are rotated and stored."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from lessor_server.domain import rotation as steps
from lessor_server.domain import static_role
from lessor_server.domain.errors.access import HOW_TO_CHANGE
from lessor_server.domain.errors.base import (
    Aborted,
    AlreadyExists,
    AwsUnavailable,
    Invalid,
    LessorError,
    NotFound,
    StaticKeyPending,
    Violation,
    require,
)
from lessor_server.domain.errors.preconditions import RootNotSet, StaticUserTaken
from lessor_server.domain.events import Changed, Created, Deleted, StaticKeyRead
from lessor_server.domain.rotation import Phase, Rotation, key_context, static_subject
from lessor_server.domain.secret import Secret
from lessor_server.domain.static_role import StaticRole
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.paging import iter_mount_names, iter_static_roles
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.rotation.key_owner import refresh_owner, require_enabled
from lessor_server.engine.rotation.rotation_run import Goal, RotationOrder, held_role
from lessor_server.engine.rotation.rotator import Rotator
from lessor_server.engine.sealing_ports import Sealer

END_SECONDS: Final = 10.0
"""How long a caller waits for AWS to delete the keys of a deleted role; the work continues afterwards."""


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """The current key of a static role, and when the next rotation is due (microseconds).

    ``period`` is the time between rotations; by a schedule it is that between the next two.
    """

    access_key_id: str
    secret: Secret
    next_us: int
    period: timedelta | None = None


class StaticRoles:
    """Manages static roles; each is a row of rotations."""

    def __init__(
        self, store: Store, roots: Roots, sealer: Sealer, notify: Observer, rotator: Rotator
    ) -> None:
        """Rotate by ``rotator``."""
        self._store = store
        self._roots = roots
        self._sealer = sealer
        self._notify = notify
        self._rotator = rotator

    async def put(
        self, role: StaticRole, by: str, *, delete_other_key: bool, create_only: bool = False
    ) -> Rotation:
        """Store a static role; for a new one, return once its first key is verified and in use.

        If the first rotation fails before it may have created a key, nothing is stored. If it fails later, or
        the store does, the role stays and the rotation is retried automatically. A role that is held, in the
        request or in the store, is only stored, and needs no root.

        Raises:
            Invalid, NotFound, MountDisabling: The request is wrong.
            AlreadyExists: The role exists, and the caller may only create (``create_only``).
            StaticUserUnknown, StaticUserChanged, RootAccountChanged, KeyLimit: The user cannot be used.
            KeyNotAccepted, AwsUnavailable: The first key is still missing.
        """
        subject = static_subject(role.mount, role.name)
        before = await self._find_before(role, by, create_only=create_only)
        is_held = role.held or (before is not None and before.held)
        new = self._defined(before or Rotation(subject, user_name=role.username), role)
        found = await self._find_owner(new)
        existed = False

        def define(row: Rotation) -> Rotation:
            nonlocal existed
            existed = bool(row.current)
            return row if create_only and existed else self._defined(row, role)

        order = RotationOrder(
            Goal.STORE if is_held else Goal.FIRST,
            delete_other_key=delete_other_key,
            new=found if is_held else replace(found, next_us=self._store.now()),
            change=define,
            by=by,
        )
        try:
            row = await self._rotator.ask(subject, order)
        except LessorError:
            if before is None:
                await self._forget_unmade(subject)
            raise
        if create_only and existed:
            raise AlreadyExists("static role", subject, fix=HOW_TO_CHANGE)
        if row.ending:
            raise _ending(subject)
        self._notify((Changed if before else Created)("static role", subject, by))
        return row

    async def _find_before(self, role: StaticRole, by: str, *, create_only: bool) -> Rotation | None:
        """Return the row that a valid role replaces, None if there is none."""
        require([violation.under("static_role") for violation in static_role.violations(role)])
        await require_enabled(self._store, role.mount)
        subject = static_subject(role.mount, role.name)
        before = await self._store.get_rotation(subject)
        if before is not None and before.ending:
            before = await self._finish_deletion(role, by)
        if before is not None and create_only:
            raise AlreadyExists("static role", subject, fix=HOW_TO_CHANGE)
        if before is not None and before.user_name != role.username:
            problem = f"is {before.user_name}, and never changes"
            fix = "store another static role, or delete this one first"
            raise Invalid((Violation("static_role.username", problem, fix),))
        return before

    async def _finish_deletion(self, role: StaticRole, by: str) -> Rotation | None:
        """Retry to delete the keys of a deleted role with this name, and return its row, if one is left.

        Raises:
            Aborted: Its keys are not deleted yet, or a key of another user may still appear.
        """
        subject = static_subject(role.mount, role.name)
        with suppress(NotFound):
            await self._rotator.ask(subject, RotationOrder(Goal.END, by=by))
        row = await self._store.get_rotation(subject)
        if row is not None and row.ending and (row.made_keys or row.user_name != role.username):
            raise _ending(subject)
        return row

    def _defined(self, row: Rotation, role: StaticRole) -> Rotation:
        """Return the row with the role's definition; a changed schedule begins now.

        The row of a deleted role without keys is used again, although keys of it may still appear.
        """
        held = role.held or row.held
        next_us = 0 if held else row.next_us
        if row.current and row.schedule != role.schedule and not held:
            next_us = role.schedule.next_us(self._store.now())
        return replace(
            row,
            schedule=role.schedule,
            live_keys=role.live_keys,
            assume_chain=role.assume_chain,
            next_us=next_us,
            ending=row.ending and bool(row.made_keys),
            held=held,
        )

    async def _find_owner(self, row: Rotation) -> Rotation:
        """Return the row with AWS's data of its user; as it is if it is held and AWS can't be asked now."""
        try:
            return await refresh_owner(self._roots, row)
        except (RootNotSet, AwsUnavailable):
            if not row.held:
                raise
            return row

    async def _forget_unmade(self, subject: str) -> None:
        """Delete the row of a new role that has nothing on AWS."""
        row = await self._store.get_rotation(subject)
        if row is not None and row.phase is Phase.IDLE and not row.last_check_us and not row.current:
            await self._store.forget_rotation(row)

    async def get(self, mount: str, name: str) -> Rotation:
        """Return a static role's row, or raise ``NotFound``, also for a deleted one that still has a row."""
        row = await self._store.get_rotation(static_subject(mount, name))
        if row is None or row.ending:
            raise NotFound("static role", f"{mount}/{name}")
        return row

    async def list(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return at most ``limit`` static roles of a mount by name, those greater than ``after``."""
        return await self._store.list_static(mount, after, limit)

    async def rotate(self, mount: str, name: str, by: str, *, delete_other_key: bool) -> Rotation:
        """Rotate a static role's key now and return the row once the new key is in use."""
        before = await self.get(mount, name)
        if before.held:
            raise held_role(before)
        order = RotationOrder(Goal.ROTATE, delete_other_key=delete_other_key, by=by)
        row = await self._rotator.ask(static_subject(mount, name), order)
        if row.ending:
            raise NotFound("static role", f"{mount}/{name}")
        return row

    async def resume(self, mount: str, name: str, by: str, *, delete_other_key: bool) -> Rotation:
        """Release a held static role, and return its row once it has a key; others are returned as they are.

        If the first rotation fails before it may have created a key, the role is held again.

        Raises:
            NotFound, MountDisabling, RootNotSet: There is no such role, or its mount makes no keys.
            StaticUserUnknown, StaticUserChanged, StaticUserTaken, KeyLimit: The user cannot be used.
            KeyNotAccepted, AwsUnavailable: The first key is still missing.
        """
        row = await self.get(mount, name)
        if not row.held:
            return row
        await require_enabled(self._store, mount)
        found = await refresh_owner(self._roots, row)
        await self._require_free_user(found)

        def release(row: Rotation) -> Rotation:
            now = self._store.now()
            next_us = row.schedule.next_us(now) if row.current else now
            return replace(row, held=False, next_us=next_us, account=found.account, user_id=found.user_id)

        order = RotationOrder(Goal.FIRST, delete_other_key=delete_other_key, change=release, by=by)
        try:
            resumed = await self._rotator.ask(row.subject, order)
        except LessorError:
            await self._hold_unmade(row.subject, by)
            raise
        if resumed.ending:
            raise NotFound("static role", f"{mount}/{name}")
        self._notify(Changed("static role", row.subject, by))
        return resumed

    async def _hold_unmade(self, subject: str, by: str) -> None:
        """Hold a role again that has nothing on AWS."""

        def hold(row: Rotation) -> Rotation:
            is_unmade = row.phase is Phase.IDLE and not row.last_check_us and not row.current
            return replace(row, held=True, next_us=0) if is_unmade and not row.ending else row

        with suppress(LessorError):
            await self._rotator.ask(subject, RotationOrder(Goal.STORE, change=hold, by=by))

    async def _require_free_user(self, row: Rotation) -> None:
        """Raise ``StaticUserTaken`` if another static role has the user, which was not known before."""
        async for mount in iter_mount_names(self._store):
            async for other in iter_static_roles(self._store, mount):
                same = (other.account, other.user_id) == (row.account, row.user_id)
                if same and other.subject != row.subject:
                    raise StaticUserTaken(row.user_name, other.title)

    async def delete(self, mount: str, name: str, by: str, *, keep_key: bool = False) -> tuple[str, ...]:
        """Delete a static role and the keys created for it; with ``keep_key`` the current one stays.

        The user and its other keys stay. Returns the ids of keys that AWS has not deleted yet; their deletion
        is retried until it succeeds. A role that is being deleted may be deleted again.

        Raises:
            NotFound: There is no such role.
        """
        subject = static_subject(mount, name)
        if await self._store.get_rotation(subject) is None:
            raise NotFound("static role", f"{mount}/{name}")

        def end(row: Rotation) -> Rotation:
            return steps.end(row, self._store.now(), keep_key=keep_key)

        row = await self._end(subject, RotationOrder(Goal.END, change=end, by=by))
        self._notify(Deleted("static role", subject, by))
        return row.made_keys if row else ()

    async def _end(self, subject: str, order: RotationOrder) -> Rotation | None:
        """Mark a static role as deleted, durably, and return its row; None if it is gone already."""
        while True:
            failure: LessorError | None = None
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._rotator.ask(subject, order)
            except TimeoutError:
                pass
            except LessorError as error:
                failure = error
            row = await self._store.get_rotation(subject)
            if row is None or row.ending:
                return row
            if failure is not None:
                raise failure

    async def credentials(self, mount: str, name: str, by: str) -> StaticCredentials:
        """Return the current key, and emit an event with the caller; this needs no call to AWS.

        Raises:
            NotFound: There is no such role.
            StaticKeyPending, StaticRoleHeld: It has no key yet.
        """
        row = await self.get(mount, name)
        if not row.current and row.held:
            raise held_role(row)
        if not row.current:
            raise StaticKeyPending(f"static role {mount}/{name} has no key yet", retry_in=10.0)
        secret = self._sealer.open(row.sealed, key_context(row.subject), row.current).decode()
        self._notify(StaticKeyRead(row.subject, row.current, by))
        return StaticCredentials(row.current, Secret(secret), row.next_us, _period(row))


def _period(row: Rotation) -> timedelta | None:
    """Return the time between rotations, None while the role is held."""
    if row.schedule.period is not None or not row.next_us:
        return row.schedule.period if row.next_us else None
    return timedelta(microseconds=row.schedule.next_us(row.next_us) - row.next_us)


def _ending(subject: str) -> Aborted:
    return Aborted(f"{subject} was deleted, and AWS may still have a key of it", retry_in=10.0)
