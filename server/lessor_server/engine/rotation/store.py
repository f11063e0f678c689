"""The store's port for rotations, which ``ports.Store`` joins to the others."""

from __future__ import annotations

from typing import Protocol

from lessor_server.domain.root import StoredRoot
from lessor_server.domain.rotation import Rotation


class RotationStore(Protocol):
    """Rows of rotations; each step is worked out in ``domain.rotation`` and written whole.

    Whoever holds a claim has the row's newest generation; a write by an older one changes nothing.
    """

    def now(self) -> int:
        """Return the service's time: every comparison with a stored instant uses it."""
        ...

    async def add_rotation(self, rotation: Rotation) -> Rotation | None:
        """Store a new row, claimed; None where there is one.

        Raises:
            StaticUserTaken: It is of a static role, and another one has the same user.
        """
        ...

    async def get_rotation(self, subject: str) -> Rotation | None:
        """Return one row."""
        ...

    async def list_static(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return the rows of a mount's static roles by name, those greater than ``after``."""
        ...

    async def static_holder(self, key_id: str, without: str) -> Rotation | None:
        """Return the static role whose current key it is, or the one before or after, but not ``without``."""
        ...

    async def rotated_away(self, key_id: str) -> Rotation | None:
        """Return the root's rotation, of any mount, that has replaced a key; None where none has."""
        ...

    async def static_of_disabled(self) -> list[Rotation]:
        """Return the static roles of all disabling mounts, also those that are deleted and not gone yet."""
        ...

    async def forget_static(self, mount: str) -> None:
        """Delete the rows of a disabling mount's static roles, claimed or not."""
        ...

    async def unfinished_of_removed_mounts(self) -> list[Rotation]:
        """Return the rotations of roots that ``remove_disabled`` would forget half done: AWS refuses them."""
        ...

    async def forget_rotation(self, rotation: Rotation) -> bool:
        """Delete a row of this generation; False where it has changed."""
        ...

    async def claim_rotation(self, subject: str) -> Rotation | None:
        """Claim a row that nobody works on, due or not, for ``CLAIM_US``."""
        ...

    async def claim_rotations(self, limit: int, without: frozenset[str]) -> list[Rotation]:
        """Claim what is due, earliest first, but not the subjects ``without``."""
        ...

    async def next_rotation_us(self, without: frozenset[str]) -> int:
        """Return when the next row is due, but not one of ``without``; 0 for never."""
        ...

    async def move_rotation(self, rotation: Rotation, *, done: bool) -> Rotation | None:
        """Write a claimed row; where that is ``done`` let the claim go, otherwise extend it.

        None where the claim is lost.
        """
        ...

    async def switch_root(self, rotation: Rotation, root: StoredRoot) -> Rotation | None:
        """Write a claimed row and replace the root of the version before, both or neither."""
        ...

    async def void_stale_rotation_claims(self) -> int:
        """Void every claim and make its row due at once; return how many.

        Only for a store that proves that no other process lives.
        """
        ...
