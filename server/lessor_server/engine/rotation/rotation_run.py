"""One attempt on one rotation: takes a claimed row as far as it goes now, and lets it go.

Every step is durable before the next call is sent, so an attempt that dies anywhere is taken up by the
next one from the row alone. A CreateAccessKey whose fate is unknown is never repeated without looking.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace

from lessor_server.domain import rotation as steps
from lessor_server.domain.aws.calls import AccessKey
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal, for_caller
from lessor_server.domain.errors.base import (
    Aborted,
    AwsUnavailable,
    InternalError,
    KeyNotAccepted,
    LessorError,
    PacerFull,
    RowUnreadable,
    StoreUnavailable,
)
from lessor_server.domain.errors.preconditions import (
    KeyLimit,
    RootAccountChanged,
    RootKeyInUse,
    StaticKeyInUse,
)
from lessor_server.domain.events import KeyLeft, KeyRetired, Rotated, RotationMissed
from lessor_server.domain.rotation import LATE_US, Phase, Rotation, place_of
from lessor_server.domain.secret import Secret
from lessor_server.domain.static_role import MAX_KEYS
from lessor_server.engine.aws.caller import Done, Outcome
from lessor_server.engine.rotation.claim import RotationClaim
from lessor_server.engine.rotation.key_owner import changed_user, identified, require_enabled, require_no_root
from lessor_server.engine.rotation.key_removal import KeyRemoval
from lessor_server.engine.rotation.order import Goal, Order, RotationDeps
from lessor_server.engine.rotation.user_keys import UserKeys

_UNREACHABLE = (KeyLimit, RootAccountChanged, RootKeyInUse, StaticKeyInUse)
"""Why a key of a deleted static role stays for good: it is another's, or of an account out of reach."""


class RotationRun:
    """An attempt under way."""

    def __init__(
        self, tools: RotationDeps, claimed: Rotation, order: Order, switched: Callable[[Rotation], None]
    ) -> None:
        """Work on a ``claimed`` row; ``switched`` is called once the new key is in use."""
        self._tools = tools
        self._held = RotationClaim(tools.store, tools.notify, tools.rng, claimed)
        self._keys = UserKeys(tools.roots, tools.sealer)
        self._removal = KeyRemoval(tools, self._held, self._keys, any_key=order.delete_other_key)
        self._plan = order
        self._switched = switched
        self._wanted = order.aim is Goal.ROTATE or (order.aim is Goal.FIRST and not claimed.current)
        self._unsure = claimed.phase is Phase.INTENDED
        """A CreateAccessKey that nobody heard the answer of may have taken effect, or still may."""

    @property
    def row(self) -> Rotation:
        """Return the row as it is now."""
        return self._held.now

    async def run(self) -> Rotation:
        """Do it and return the row, or raise what kept it from being done."""
        try:
            with self._tools.supervisor.unit(f"rotate the key of {self.row.subject}"):
                await self._run()
        except StoreUnavailable:
            raise
        except LessorError as error:
            await self._held.fail(error, self._plan.by)
            raise
        return self.row

    async def _run(self) -> None:
        if self._plan.change is not None:
            await self._held.move(self._plan.change(self.row))
        if self.row.ending:
            await self._end()
            return
        if self._plan.aim is Goal.ALIGN:
            await self._align()
        else:
            while await self._step():
                pass
        await self._held.let_go()

    async def _step(self) -> bool:
        """Take the next step; False where none is due."""
        match self.row.phase:
            case Phase.IDLE:
                return await self._start()
            case Phase.INTENDED:
                await self._make()
            case Phase.MADE:
                await self._prove()
            case Phase.DROPPING:
                await self._drop()
            case Phase.RETIRING:
                return await self._retire()
        return True

    # --- IDLE -------------------------------------------------------------------------------------------

    async def _start(self) -> bool:
        row, now = self.row, self._tools.store.now()
        if 0 < row.last_check_us <= now:
            await self._look_late()
        elif self._wanted or (row.wanted(now) and not row.schedule.missed(row.next_us, now)):
            await self._intend()
        elif row.wanted(now):
            await self._held.move(replace(row, next_us=row.schedule.next_us(now), attempts=0))
            self._tools.notify(RotationMissed(row.subject, self.row.next_us))
        elif row.previous and row.live_keys < MAX_KEYS:
            await self._delete_previous()
        else:
            return False
        return True

    async def _look_late(self) -> None:
        """Look for the last time for what a CreateAccessKey of unknown fate may have made."""
        await self._unless_left(self._removal.look())
        await self._held.move(replace(self.row, last_check_us=0))

    async def _intend(self) -> None:
        """Make room, and make durable that a key is about to be made."""
        await require_enabled(self._tools.store, self.row.mount)
        self._held.now = await identified(self._tools.roots, self.row)
        gone = {self.row.previous, *self.row.away}
        if self.row.previous:
            await self._delete_previous()
        listed = await self._keys.listed(self.row)
        if not (self.row.is_root or self.row.current):
            await require_no_root(self._tools.store, self._tools.roots, self.row, listed)
        if self.row.last_check_us:
            gone.add(await self._removal.delete_lost(listed))
        left = [key_id for key_id in listed if key_id not in gone]
        if len(left) >= MAX_KEYS:
            if not self._plan.delete_other_key:
                raise KeyLimit(self.row.user_name, tuple(left))
            await self._removal.delete(next(key_id for key_id in left if key_id != self.row.current))
        await self._held.move(steps.intend(self.row, listed))

    # --- INTENDED ---------------------------------------------------------------------------------------

    async def _make(self) -> None:
        """Have the new key made, and make it durable."""
        if self.row.is_root and not await self._in_use():
            await self._give_up()
        if self._unsure and not await self._keys.same_user(self.row):
            await self._held.move(steps.cancel(self.row))  # and what was made went with the user
            raise changed_user(self.row)
        made = await self._create_key()
        sealed = self._tools.sealer.seal(made.secret.reveal().encode(), place_of(self.row.subject))
        await self._held.move(steps.make(self._with_late(), made.access_key_id, sealed))

    async def _create_key(self) -> AccessKey:
        outcome = await self._send_create_key()
        if await self._worth_another(outcome):
            outcome = await self._send_create_key()
        if isinstance(outcome, Done):
            return outcome.value
        if not _unknown(outcome):
            await self._held.move(steps.cancel(self._with_late()))
        raise for_caller(outcome)

    async def _send_create_key(self) -> Outcome[AccessKey]:
        """Send CreateAccessKey, after a check for a key that an earlier one may have created."""
        if self._unsure:
            await self._removal.find_lost()
        outcome = await self._keys.made(self.row)
        self._unsure = self._unsure or _unknown(outcome)
        return outcome

    async def _worth_another(self, outcome: Outcome[AccessKey]) -> bool:
        """Return whether to retry: AWS did not answer, or a lost, not yet listed key takes the room."""
        full = isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.LIMIT
        self._unsure = self._unsure or (full and self.row.last_check_us > 0)
        if _unknown(outcome):
            return await self._keys.may_repeat(self.row)
        return full and self._unsure

    def _with_late(self) -> Rotation:
        """Return the row with a last look ahead, where a key may yet be made by a request on its way."""
        last_check_us = self._tools.store.now() + LATE_US
        return replace(self.row, last_check_us=last_check_us) if self._unsure else self.row

    async def _give_up(self) -> None:
        """End the rotation of a key that is the root's no longer."""
        self._unsure = True
        await self._unless_left(self._removal.find_lost())
        await self._held.move(steps.cancel(self._with_late()))
        raise self._set_again()

    # --- MADE -------------------------------------------------------------------------------------------

    async def _prove(self) -> None:
        row = self.row
        secret = Secret(self._tools.sealer.open(row.fresh_sealed, place_of(row.subject)).decode())
        try:
            await self._keys.prove(row, AccessKey(row.fresh, secret))
        except KeyNotAccepted as error:
            await self._undo(error)
        if row.is_root:
            await self._switch_root(secret)
        else:
            now = self._tools.store.now()
            await self._held.move(steps.switch(row, row.schedule.next_us(now), now))
        self._wanted = False
        self._tools.notify(Rotated(row.subject, self.row.current, self._plan.by))
        self._switched(self.row)

    async def _switch_root(self, secret: Secret) -> None:
        """Put the new key into the root's config, if the old one still stands there."""
        roots, rng = self._tools.roots, self._tools.rng
        switched = False
        while not switched:
            root = await roots.of(self.row.mount)
            if root.config.access_key != self.row.current:
                await self._undo(self._set_again())
            now = self._tools.store.now()
            config = replace(root.config, access_key=self.row.fresh, secret_key=secret)
            stored = roots.seal(
                replace(root, version=root.version + 1, config=config), f"{rng.getrandbits(64):016x}"
            )
            after = steps.switch(self.row, config.rotation.next_us(now, rng.random()), now)
            switched = await self._held.switch(replace(after, schedule=config.rotation), stored)
        await roots.of(self.row.mount)  # calls under way go on with the new key

    async def _undo(self, error: LessorError) -> None:
        """Delete the new key, which must not be used, and raise ``error``."""
        await self._held.move(steps.drop(self.row))
        await self._drop()
        raise error

    async def _drop(self) -> None:
        await self._unless_left(self._removal.delete(self.row.fresh))
        await self._held.move(steps.dropped(self.row))

    # --- RETIRING ---------------------------------------------------------------------------------------

    async def _retire(self) -> bool:
        """Switch the old key off, or delete it where its time is over or its place is needed."""
        row, now = self.row, self._tools.store.now()
        if self._wanted or row.wanted(now) or now >= row.retire_us:
            await self._delete_previous()
            return True
        if now >= row.idle_due_us():
            await self._removal.require_unused(row.previous)
            await self._keys.deactivate(row, row.previous)
            self._held.now = replace(row, inactive=True)
        return False

    async def _delete_previous(self) -> None:
        old = self.row.previous
        deleted = await self._unless_left(self._removal.delete(old))
        await self._held.move(steps.retire(self.row))
        if deleted:
            self._tools.notify(KeyRetired(self.row.subject, old))

    # --- a root that changed, and the end ---------------------------------------------------------------

    async def _align(self) -> None:
        """Have the next rotation due when the root's config says, if that has changed."""
        root = await self._tools.roots.of(self.row.mount)
        schedule = root.config.rotation
        if schedule != self.row.schedule:
            next_us = schedule.next_us(self._tools.store.now(), self._tools.rng.random())
            self._held.now = replace(self.row, schedule=schedule, next_us=next_us)

    async def _end(self) -> None:
        """Delete the keys that were made for a static role, and forget the row when no other can appear."""
        for key_id in self.row.made_keys:
            deleted = await self._unless_left(self._removal.delete(key_id))
            await self._held.move(steps.key_deleted(self.row, key_id))
            if deleted:
                self._tools.notify(KeyRetired(self.row.subject, key_id))
        if self.row.last_check_us:
            look = self._removal.find_lost if self._unsure else self._removal.look
            settled = await self._unless_left(look())
            if settled and self._tools.store.now() < self.row.last_check_us:
                await self._held.let_go()
                return
        await self._held.forget()

    async def _unless_left(self, doing: Coroutine[object, object, object]) -> bool:
        """Do what AWS may refuse for good, of a root that was set again or a role that ends; False where so.

        An event names the key that stays.
        """
        try:
            await doing
            return True
        except (AwsUnavailable, PacerFull, StoreUnavailable, InternalError, RowUnreadable):
            raise
        except LessorError as error:
            row = self.row
            unreachable = row.ending and isinstance(error, _UNREACHABLE)
            if not unreachable and not (row.is_root and not await self._in_use()):
                raise
            self._tools.notify(KeyLeft(row.subject, row.user_name, row.unneeded, error.message))
            return False

    async def _in_use(self) -> bool:
        """Return whether the root's key is the one that the rotation knows for it."""
        root = await self._tools.roots.of(self.row.mount)
        return root.config.access_key == self.row.current

    def _set_again(self) -> Aborted:
        return Aborted(f"the root of {self.row.mount} was set again while its key was rotated", retry_in=1.0)


def _unknown(outcome: Outcome[AccessKey]) -> bool:
    """Return whether a key may have been created although AWS did not answer."""
    return isinstance(outcome, AwsUnknown) and outcome.sent
