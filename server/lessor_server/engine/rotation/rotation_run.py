"""One attempt at one rotation: carries a claimed row through all steps that are due, and releases it.

Every step is durable before the next call is sent, so the next attempt can continue from the row after a
crash. After a CreateAccessKey of unknown fate, the keys are listed before another is sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from lessor_server.domain import backoff
from lessor_server.domain import rotation as steps
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal, for_caller
from lessor_server.domain.aws.iam_calls import AccessKey
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import (
    Aborted,
    AwsUnavailable,
    InternalError,
    KeyNotAccepted,
    LessorError,
    RateLimiterFull,
    RowUnreadable,
    StoreUnavailable,
)
from lessor_server.domain.errors.preconditions import (
    KeyLimit,
    RootAccountChanged,
    RootKeyInUse,
    StaticKeyInUse,
    StaticRoleHeld,
)
from lessor_server.domain.events import (
    BY_CLOCK,
    KeyLeft,
    KeyRetired,
    LostKeyDeleted,
    Rotated,
    RotationFailed,
    RotationMissed,
)
from lessor_server.domain.root import StoredRoot
from lessor_server.domain.rotation import LATE_US, Phase, Rotation
from lessor_server.domain.secret import Secret
from lessor_server.domain.static_role import MAX_KEYS
from lessor_server.engine.aws.caller import Outcome
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.rotation.key_owner import (
    changed_user,
    refresh_owner,
    require_enabled,
    require_no_root,
)
from lessor_server.engine.rotation.user_keys import UserKeys
from lessor_server.engine.supervisor import Supervisor

_UNREACHABLE = (KeyLimit, RootAccountChanged, RootKeyInUse, StaticKeyInUse)
"""Errors for which a key of a deleted static role stays: others use it, or its account is out of reach."""
_SILENT = (AwsUnavailable, RateLimiterFull, Aborted)
"""Errors that do not concern the row and count no attempt."""
LISTING_WAITS: Final = (1.0, 2.0, 4.0)
"""Waits before each check for a lost key: AWS's listing may be some seconds old."""


class Goal(Enum):
    """The goal of an attempt."""

    DUE = "due"
    """Carry out the steps that are due."""
    ROTATE = "rotate"
    """Rotate now."""
    FIRST = "first"
    """Rotate now if there is no key yet, and carry out the steps that are due."""
    ALIGN = "align"
    """Only schedule the next rotation of a root by its config."""
    STORE = "store"
    """Only store the row as the order changes it."""
    END = "end"
    """Delete the keys of a deleted static role, and then its row."""


@dataclass(frozen=True, slots=True)
class RotationOrder:
    """The goal of an attempt and its caller; ``new`` is the row to store if there is none."""

    goal: Goal = Goal.DUE
    delete_other_key: bool = False
    new: Rotation | None = None
    change: Callable[[Rotation], Rotation] | None = None
    by: str = BY_CLOCK


class RotationClaim:
    """Holds the claim; ``now`` is the row with changes that are not durable yet."""

    def __init__(self, store: Store, notify: Observer, rng: random.Random, claimed: Rotation) -> None:
        """Begin with the row as it was ``claimed``."""
        self.now = claimed
        self.store = store
        self._notify = notify
        self._rng = rng

    async def move(self, after: Rotation, *, done: bool = False) -> None:
        """Make the next state durable, or raise ``Aborted`` if the claim is lost."""
        moved = await self.store.move_rotation(after, done=done)
        if moved is None:
            raise self._lost()
        self.now = moved

    async def switch(self, after: Rotation, root: StoredRoot) -> bool:
        """Make the next state and the root durable in one transaction; False if the root has changed."""
        moved = await self.store.switch_root(after, root)
        if moved is not None:
            self.now = moved
            return True
        there = await self.store.get_rotation(after.subject)
        if there is None or there.generation != self.now.generation:
            raise self._lost()
        return False

    async def let_go(self) -> None:
        """Release the row, due at its next step."""
        await self.move(replace(self.now, due_us=self.now.idle_due_us()), done=True)

    async def fail(self, error: LessorError, by: str) -> None:
        """Record why the attempt failed, with its caller ``by``, and release the row, due after back-off."""
        row = self.now
        attempts = row.attempts if isinstance(error, _SILENT) else backoff.counted(row.attempts)
        wait = backoff.refused(max(attempts, 1), self._rng.random())
        idle_due_us, again_us = row.idle_due_us(), self.store.now() + wait // MICROSECOND
        due_us = max(idle_due_us, again_us) if idle_due_us else 0
        await self.move(replace(row, attempts=attempts, last_error=error.message, due_us=due_us), done=True)
        self._notify(RotationFailed(row.subject, error.message, error.detail, attempts, by))

    async def forget(self) -> None:
        """Delete the row, or raise ``Aborted`` if the claim is lost."""
        if not await self.store.forget_rotation(self.now):
            raise self._lost()

    def _lost(self) -> Aborted:
        return Aborted(f"the rotation of {self.now.subject} was claimed by another process", retry_in=1.0)


class RotationRun:
    """A running attempt."""

    def __init__(
        self,
        held: RotationClaim,
        keys: UserKeys,
        roots: Roots,
        notify: Observer,
        rng: random.Random,
        supervisor: Supervisor,
        order: RotationOrder,
        switched: Callable[[Rotation], None],
    ) -> None:
        """Work on the row that is ``held``; call ``switched`` once the new key is in use."""
        self._held = held
        self._keys = keys
        self._roots = roots
        self._notify = notify
        self._rng = rng
        self._supervisor = supervisor
        self._order = order
        self._switched = switched
        self._wanted = order.goal is Goal.ROTATE or (order.goal is Goal.FIRST and not held.now.current)
        self._unsure = held.now.phase is Phase.INTENDED
        """A CreateAccessKey without an answer may have taken effect, or still may."""

    @property
    def row(self) -> Rotation:
        """Return the current row."""
        return self._held.now

    async def run(self) -> Rotation:
        """Run the attempt and return the row, or raise the error that stopped it."""
        try:
            with self._supervisor.unit(f"rotate the key of {self.row.subject}"):
                await self._run()
        except StoreUnavailable:
            raise
        except LessorError as error:
            await self._held.fail(error, self._order.by)
            raise
        return self.row

    async def _run(self) -> None:
        if self._order.change is not None:
            await self._held.move(self._order.change(self.row))
        if self.row.ending:
            await self._end()
            return
        if self._order.goal is Goal.ALIGN:
            await self._align()
        elif self._order.goal is not Goal.STORE:
            while await self._step():
                pass
        await self._held.let_go()

    async def _step(self) -> bool:
        """Carry out the next step; return False if none is due."""
        match self.row.phase:
            case Phase.IDLE:
                return await self._start()
            case Phase.INTENDED:
                await self._create()
            case Phase.MADE:
                await self._verify()
            case Phase.DROPPING:
                await self._drop()
            case Phase.RETIRING:
                return await self._retire()
        return True

    # --- IDLE -------------------------------------------------------------------------------------------

    async def _start(self) -> bool:
        row, now = self.row, self._held.store.now()
        if self._wanted and row.held:
            raise held_role(row)
        if 0 < row.last_check_us <= now:
            await self._check_late()
        elif self._wanted or (row.is_due(now) and not row.schedule.missed(row.next_us, now)):
            await self._intend()
        elif row.is_due(now):
            await self._held.move(replace(row, next_us=row.scheduled_us(now), attempts=0))
            self._notify(RotationMissed(row.subject, self.row.next_us))
        elif row.previous and row.live_keys < MAX_KEYS:
            await self._delete_previous()
        else:
            return False
        return True

    async def _check_late(self) -> None:
        """Check for the last time for a key that a CreateAccessKey of unknown fate may have created."""
        await self._run_unless_left(self._check_for_lost())
        await self._held.move(replace(self.row, last_check_us=0))

    async def _intend(self) -> None:
        """Make room for a key, and store the intent to create one."""
        await require_enabled(self._held.store, self.row.mount)
        self._held.now = await refresh_owner(self._roots, self.row)
        gone = {self.row.previous, *self.row.away}
        if self.row.previous:
            await self._delete_previous()
        listed = await self._keys.list(self.row)
        if not (self.row.is_root or self.row.current):
            await require_no_root(self._held.store, self._roots, self.row, listed)
        if self.row.last_check_us:
            gone.add(await self._delete_lost(listed))
        left = [key_id for key_id in listed if key_id not in gone]
        if len(left) >= MAX_KEYS:
            if not self._order.delete_other_key:
                raise KeyLimit(self.row.user_name, tuple(left))
            await self._keys.delete_unused(
                self.row, next(key_id for key_id in left if key_id != self.row.current)
            )
        await self._held.move(steps.intend(self.row, listed))

    # --- INTENDED ---------------------------------------------------------------------------------------

    async def _create(self) -> None:
        """Create the new key, and make it durable."""
        if self.row.is_root and not await self._is_in_use():
            await self._give_up()
        if self._unsure and not await self._keys.is_same_user(self.row):
            await self._held.move(steps.cancel(self.row))  # a key that was created is deleted with its user
            raise changed_user(self.row)
        made = await self._create_key()
        sealed = self._keys.seal(self.row, made)
        await self._held.move(steps.make(self._with_late(), made.access_key_id, sealed))

    async def _create_key(self) -> AccessKey:
        outcome = await self._send_create_key()
        if await self._is_worth_another(outcome):
            outcome = await self._send_create_key()
        if not isinstance(outcome, LessorError):
            return outcome
        if not _unknown(outcome):
            await self._held.move(steps.cancel(self._with_late()))
        raise for_caller(outcome)

    async def _send_create_key(self) -> Outcome[AccessKey]:
        """Send CreateAccessKey, after a check for a key that an earlier one may have created."""
        if self._unsure:
            await self._find_lost()
        outcome = await self._keys.create(self.row)
        self._unsure = self._unsure or _unknown(outcome)
        return outcome

    async def _is_worth_another(self, outcome: Outcome[AccessKey]) -> bool:
        """Return whether to retry: AWS did not answer, or a lost key that is not listed yet uses the room."""
        full = isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.LIMIT
        self._unsure = self._unsure or (full and self.row.last_check_us > 0)
        if _unknown(outcome):
            return await self._keys.may_repeat(self.row)
        return full and self._unsure

    def _with_late(self) -> Rotation:
        """Return the row with a last check due, if a request in flight may still create a key."""
        last_check_us = self._held.store.now() + LATE_US
        return replace(self.row, last_check_us=last_check_us) if self._unsure else self.row

    async def _give_up(self) -> None:
        """End the rotation of a key that is no longer the root's."""
        self._unsure = True
        await self._run_unless_left(self._find_lost())
        await self._held.move(steps.cancel(self._with_late()))
        raise self._set_again()

    # --- MADE -------------------------------------------------------------------------------------------

    async def _verify(self) -> None:
        row = self.row
        secret = self._keys.open_fresh(row)
        try:
            await self._keys.verify(row, AccessKey(row.fresh, secret))
        except KeyNotAccepted as error:
            await self._undo(error)
        if row.is_root:
            await self._switch_root(secret)
        else:
            now = self._held.store.now()
            await self._held.move(steps.switch(row, row.scheduled_us(now), now))
        self._wanted = False
        self._notify(Rotated(row.subject, self.row.current, self._order.by))
        self._switched(self.row)

    async def _switch_root(self, secret: Secret) -> None:
        """Put the new key into the root's config, if the old one is still there."""
        switched = False
        while not switched:
            root = await self._roots.get(self.row.mount)
            if root.config.access_key != self.row.current:
                await self._undo(self._set_again())
            now = self._held.store.now()
            config = replace(root.config, access_key=self.row.fresh, secret_key=secret)
            stored = self._roots.seal(replace(root, version=root.version + 1, config=config))
            after = steps.switch(self.row, config.rotation.next_us(now, self._rng.random()), now)
            switched = await self._held.switch(replace(after, schedule=config.rotation), stored)
        await self._roots.get(self.row.mount)  # calls in flight continue with the new key

    async def _undo(self, error: LessorError) -> None:
        """Delete the new key, which must not be used, and raise ``error``."""
        await self._held.move(steps.drop(self.row))
        await self._drop()
        raise error

    async def _drop(self) -> None:
        await self._run_unless_left(self._keys.delete_unused(self.row, self.row.fresh))
        await self._held.move(steps.dropped(self.row))

    # --- RETIRING ---------------------------------------------------------------------------------------

    async def _retire(self) -> bool:
        """Deactivate the old key, or delete it if its time is over or its place is needed."""
        row, now = self.row, self._held.store.now()
        if self._wanted or row.is_due(now) or now >= row.retire_us:
            await self._delete_previous()
            return True
        if now >= row.idle_due_us():
            await self._keys.require_unused(row, row.previous)
            await self._keys.deactivate(row, row.previous)
            self._held.now = replace(row, inactive=True)
        return False

    async def _delete_previous(self) -> None:
        old = self.row.previous
        deleted = await self._run_unless_left(self._keys.delete_unused(self.row, old))
        await self._held.move(steps.retire(self.row))
        if deleted:
            self._notify(KeyRetired(self.row.subject, old))

    # --- a root that changed, and the end ---------------------------------------------------------------

    async def _align(self) -> None:
        """Reschedule the next rotation by the root's config, if that has changed."""
        root = await self._roots.get(self.row.mount)
        schedule = root.config.rotation
        if schedule != self.row.schedule:
            next_us = schedule.next_us(self._held.store.now(), self._rng.random())
            self._held.now = replace(self.row, schedule=schedule, next_us=next_us)

    async def _end(self) -> None:
        """Delete the keys created for a static role, and its row once no other key can appear."""
        for key_id in self.row.made_keys:
            deleted = await self._run_unless_left(self._keys.delete_unused(self.row, key_id))
            await self._held.move(steps.key_deleted(self.row, key_id))
            if deleted:
                self._notify(KeyRetired(self.row.subject, key_id))
        if self.row.last_check_us:
            check = self._find_lost if self._unsure else self._check_for_lost
            settled = await self._run_unless_left(check())
            if settled and self._held.store.now() < self.row.last_check_us:
                await self._held.let_go()
                return
        await self._held.forget()

    async def _find_lost(self) -> None:
        """Check a few times for the key that was created without an answer, and delete it."""
        for seconds in LISTING_WAITS:
            await asyncio.sleep(seconds)
            if await self._check_for_lost():
                return

    async def _check_for_lost(self) -> str:
        """Check once; return the id of the key that was found and deleted, empty if there is none."""
        if not await self._keys.is_same_user(self.row):
            return ""
        return await self._delete_lost(await self._keys.list(self.row))

    async def _delete_lost(self, listed: tuple[str, ...]) -> str:
        """Delete the one key that can only be ours; return its id, empty if there is none.

        Of two candidates either may be ours, so none is deleted, unless the order allows other keys too.
        """
        lost = await self._keys.select_unused(self.row, self.row.lost(listed))
        if len(lost) > 1 and not self._order.delete_other_key:
            raise KeyLimit(self.row.user_name, lost)
        for key_id in lost:
            await self._keys.delete(self.row, key_id)
            self._notify(LostKeyDeleted(self.row.subject, key_id))
            self._held.now = replace(self.row, keys_before=(*self.row.keys_before, key_id))
        return lost[0] if lost else ""

    async def _run_unless_left(self, doing: Coroutine[object, object, object]) -> bool:
        """Run a step of a replaced root or an ending role; return False if AWS refuses it for good.

        An event then names the key that stays.
        """
        try:
            await doing
            return True
        except (AwsUnavailable, RateLimiterFull, StoreUnavailable, InternalError, RowUnreadable):
            raise
        except LessorError as error:
            row = self.row
            unreachable = row.ending and isinstance(error, _UNREACHABLE)
            if not unreachable and not (row.is_root and not await self._is_in_use()):
                raise
            self._notify(KeyLeft(row.subject, row.user_name, row.unneeded, error.message))
            return False

    async def _is_in_use(self) -> bool:
        """Return whether the root's key is still the rotation's current key."""
        root = await self._roots.get(self.row.mount)
        return root.config.access_key == self.row.current

    def _set_again(self) -> Aborted:
        return Aborted(f"the root of {self.row.mount} was set again while its key was rotated", retry_in=1.0)


def held_role(row: Rotation) -> StaticRoleHeld:
    """Return the error of a static role that is held."""
    return StaticRoleHeld(f"{row.title} is held: another system rotates its user", subject=row.subject)


def _unknown(outcome: Outcome[AccessKey]) -> bool:
    """Return whether a key may have been created although AWS did not answer."""
    return isinstance(outcome, AwsUnknown) and outcome.sent
