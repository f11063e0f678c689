"""The rotations of the store in memory, by the rules of ``adapters/sql/rotations.py``."""

from __future__ import annotations

from dataclasses import replace

from lessor_server.domain.errors.preconditions import StaticUserTaken
from lessor_server.domain.lease import STUCK_AFTER
from lessor_server.domain.root import StoredRoot
from lessor_server.domain.rotation import CLAIM_US, STEPS, Phase, Rotation, static_prefix
from tests.support.memory_config import At
from tests.support.memory_keyring import MemoryKeyring


class MemoryRotations(MemoryKeyring):
    """Keeps rotations by their subjects."""

    def __init__(self, at: At, instance: str) -> None:
        """Begin with none."""
        super().__init__(at, instance)
        self._rows_claimed: set[str] = set()

    def now(self) -> int:
        """Return the service's time."""
        raise NotImplementedError

    async def add_rotation(self, rotation: Rotation) -> Rotation | None:
        """Store a new row, claimed; None if there already is one."""
        await self._before("add_rotation")
        new = rotation.subject not in self.rotations
        taken = next((one for one in self._static_but(rotation.subject) if _same_user(one, rotation)), None)
        if new and taken is not None:
            raise StaticUserTaken(rotation.user_name, taken.title)
        made = self._claim_row(replace(rotation, generation=0)) if new else None
        await self._at("add_rotation done")
        return made

    async def get_rotation(self, subject: str) -> Rotation | None:
        """Return one row."""
        await self._before("get_rotation", reads=True)
        self._require_authentic_rotation(subject)
        return self.rotations.get(subject)

    async def list_static(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return the rows of a mount's static roles by name."""
        await self._before("list_static", reads=True)
        prefix = static_prefix(mount)
        found = sorted(one for one in self.rotations if one.startswith(prefix) and one > prefix + after)
        return [self.rotations[one] for one in found if not self.rotations[one].ending][:limit]

    async def find_static_holder(self, key_id: str, without: str) -> Rotation | None:
        """Return the static role that a key is of, but not the subject ``without``."""
        await self._before("find_static_holder", reads=True)
        others = self._static_but(without)
        return next((one for one in others if key_id in (one.current, one.previous, one.fresh)), None)

    async def find_replacing_rotation(self, key_id: str) -> Rotation | None:
        """Return the root's rotation that has replaced a key."""
        await self._before("find_replacing_rotation", reads=True)
        roots = [one for _, one in sorted(self.rotations.items()) if one.is_root]
        return next((one for one in roots if key_id in one.away), None)

    async def list_static_of_disabled(self) -> list[Rotation]:
        """Return the static roles of all disabling mounts."""
        await self._before("list_static_of_disabled", reads=True)
        return [one for one in self._static_but("") if self._is_disabling(one.mount)]

    async def forget_static(self, mount: str) -> None:
        """Delete the rows of a disabling mount's static roles."""
        await self._before("forget_static")
        for one in self._static_but(""):
            if one.mount == mount and self._is_disabling(mount):
                del self.rotations[one.subject]
                self._rows_claimed.discard(one.subject)
        await self._at("forget_static done")

    def _is_disabling(self, mount: str) -> bool:
        """Return whether a mount is being disabled."""
        raise NotImplementedError

    async def list_unfinished_of_removed_mounts(self) -> list[Rotation]:
        """Return the unfinished rotations of mounts that ``remove_disabled`` would remove."""
        await self._before("list_unfinished_of_removed_mounts", reads=True)
        removable = self._removable()
        found = [self.rotations[one] for one in sorted(self.rotations)]
        return [one for one in found if one.mount in removable and _is_half_made(one)]

    def _removable(self) -> list[str]:
        """Return the disabling mounts that have no live lease left, and no rotation that needs their root."""
        raise NotImplementedError

    async def forget_rotation(self, rotation: Rotation) -> bool:
        """Delete a row of this generation."""
        await self._before("forget_rotation")
        held = self._has_rotation(rotation)
        if held:
            del self.rotations[rotation.subject]
            self._rows_claimed.discard(rotation.subject)
        await self._at("forget_rotation done")
        return held

    async def claim_rotation(self, subject: str) -> Rotation | None:
        """Claim a row that is free, due or not."""
        await self._before("claim_rotation")
        self._require_authentic_rotation(subject)
        there = self.rotations.get(subject)
        free = there is not None and (subject not in self._rows_claimed or there.due_us <= self.now())
        claimed = self._claim_row(there) if there is not None and free else None
        await self._at("claim_rotation done")
        return claimed

    async def claim_rotations(self, limit: int, without: frozenset[str]) -> list[Rotation]:
        """Claim what is due, earliest first."""
        await self._before("claim_rotations", reads=not self._due_rotations(without))
        claimed = [self._claim_row(one) for one in self._due_rotations(without)[:limit]]
        if claimed:
            await self._at("claim_rotations done")
        return claimed

    async def next_rotation_us(self, without: frozenset[str]) -> int:
        """Return when the next row is due, or 0 for never."""
        await self._before("next_rotation_us", reads=True)
        dues = (one.due_us for one in self.rotations.values() if one.subject not in without)
        return min((due for due in dues if due), default=0)

    async def move_rotation(self, rotation: Rotation, *, done: bool) -> Rotation | None:
        """Write a claimed row and keep the claim, or release it if ``done``."""
        await self._before(f"move_rotation {rotation.phase.value}")
        moved = self._put_rotation(rotation, done=done) if self._has_rotation(rotation) else None
        await self._at(f"move_rotation {rotation.phase.value} done")
        return moved

    async def switch_root(self, rotation: Rotation, root: StoredRoot) -> Rotation | None:
        """Write a claimed row and the root of the version before, both or neither."""
        await self._before("switch_root")
        there = self.roots.get(root.mount)
        moved = None
        if there is not None and there.version == root.version - 1 and self._has_rotation(rotation):
            self._require_authentic("roots", root.mount)
            self.roots[root.mount] = self._current_root(replace(root, account=there.account))
            moved = self._put_rotation(rotation, done=False)
        await self._at("switch_root done")
        return moved

    def _void_rotation_claims(self) -> None:
        """Void every claim."""
        for subject in sorted(self._rows_claimed):
            row = self.rotations[subject]
            self.rotations[subject] = replace(row, generation=row.generation + 1, due_us=self.now())
        self._rows_claimed.clear()

    def _static_but(self, subject: str) -> list[Rotation]:
        others = (self.rotations[one] for one in sorted(self.rotations) if one != subject)
        return [one for one in others if not one.is_root]

    def _has_rotation(self, rotation: Rotation) -> bool:
        there = self.rotations.get(rotation.subject)
        return there is not None and there.generation == rotation.generation

    def _due_rotations(self, without: frozenset[str]) -> list[Rotation]:
        now = self.now()
        due = [one for one in self.rotations.values() if 0 < one.due_us <= now and one.subject not in without]
        return sorted(due, key=lambda one: (one.due_us, one.subject))

    def _claim_row(self, rotation: Rotation) -> Rotation:
        return self._put_rotation(rotation, done=False)

    def _put_rotation(self, rotation: Rotation, *, done: bool) -> Rotation:
        before = self.rotations.get(rotation.subject)
        if before is not None and before.phase is not rotation.phase:
            assert any(
                before.phase is source and rotation.phase in targets for source, targets in STEPS.values()
            ), f"{before.phase} to {rotation.phase} is not a step"
        due_us = rotation.due_us if done else self.now() + CLAIM_US
        current = self._current_rotation(rotation)
        made = replace(current, generation=rotation.generation + 1, due_us=due_us)
        self.rotations[rotation.subject] = made
        (self._rows_claimed.discard if done else self._rows_claimed.add)(rotation.subject)
        return made

    def _unsettled(self, mount: str) -> bool:
        """Return whether a static role or a rotation in progress still needs the root of a mount."""
        return any(
            one.mount == mount and (not one.is_root or (one.attempts < STUCK_AFTER and _is_half_made(one)))
            for one in self.rotations.values()
        )

    def _forget_rotations(self, mount: str) -> None:
        self.rotations = {key: one for key, one in self.rotations.items() if one.mount != mount}
        self._rows_claimed &= set(self.rotations)


def _is_half_made(one: Rotation) -> bool:
    return one.phase is not Phase.IDLE or one.last_check_us > 0 or one.ending


def _same_user(one: Rotation, other: Rotation) -> bool:
    names_a_user = bool(other.user_id) and not other.is_root
    return names_a_user and (one.account, one.user_id) == (other.account, other.user_id)
