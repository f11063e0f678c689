"""The data keys of the store in memory, by the rules of ``adapters/sql/keyring.py``.

There are no MACs: a test names the rows that somebody edited, by their places, in ``tampered``.
"""

from __future__ import annotations

from dataclasses import replace

from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.root import StoredRoot, root_context
from lessor_server.domain.rotation import Rotation, key_context
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import WrappedKey
from tests.support.memory_config import At, MemoryConfig


class MemoryKeyring(MemoryConfig):
    """Keeps data keys, and seals rows again in the steps of the real store."""

    def __init__(self, at: At, instance: str) -> None:
        """Begin without data keys."""
        super().__init__(at, instance)
        self.data_keys: list[WrappedKey] = []
        self.rotations: dict[str, Rotation] = {}

    def _drop_login_tokens(self) -> None:
        """Delete all login tokens."""

    def _lease_ids(self) -> list[str]:
        """Return the ids of all leases, in order."""
        raise NotImplementedError

    async def list_data_keys(self) -> list[WrappedKey]:
        """Return the stored data keys."""
        await self._before("list_data_keys", reads=True)
        return sorted(self.data_keys, key=lambda key: key.id)

    async def begin_keyring(self, key: WrappedKey, seals: RowSeals) -> int:
        """Replace all data keys, and seal every row."""
        await self._before("begin_keyring")
        self.data_keys, self.seals = [key], seals
        self.tampered.clear()
        self._drop_login_tokens()
        values = sum(self._seal_mount(mount) for mount in self._sealed_mounts())
        await self._at("begin_keyring done")
        return values

    async def unlock(self, seals: RowSeals) -> None:
        """Seal values again with ``seals``; end a hold that somebody else wrote."""
        await self._before("unlock")
        self.seals = seals
        if "meta/held" in self.tampered:
            await self.set_expiry_hold("")

    async def set_expiry_hold(self, why: str) -> None:
        """Keep the hold."""
        raise NotImplementedError

    async def add_data_key(self, key: WrappedKey) -> None:
        """Store a new data key as the active one."""
        await self._before("add_data_key")
        self.data_keys = [*(replace(one, is_active=False) for one in self.data_keys), key]
        await self._at("add_data_key done")

    async def reseal_mount(self, after: str) -> tuple[str, int] | None:
        """Seal the rows of the next mount."""
        await self._before("reseal_mount")
        mount = next((name for name in self._sealed_mounts() if name > after), None)
        found = None if mount is None else (mount, self._seal_mount(mount))
        await self._at("reseal_mount done")
        return found

    async def reseal_leases(self, after: str, limit: int) -> str | None:
        """Pass the next leases: they have no MACs here."""
        await self._before("reseal_leases")
        page = [lease_id for lease_id in self._lease_ids() if lease_id > after][:limit]
        await self._at("reseal_leases done")
        return page[-1] if page else None

    async def drop_data_keys(self, active_id: str) -> None:
        """Delete every data key except one."""
        await self._before("drop_data_keys")
        if any(key.id == active_id and key.is_active for key in self.data_keys):
            self.data_keys = [key for key in self.data_keys if key.id == active_id]
        await self._at("drop_data_keys done")

    def _sealed_mounts(self) -> list[str]:
        rotated = {rotation.mount for rotation in self.rotations.values()}
        return sorted({*self.mounts, *self.roots, *(mount for mount, _ in self.roles), *rotated})

    def _seal_mount(self, mount: str) -> int:
        values = 0
        root = self.roots.get(mount)
        if root is not None:
            self.roots[mount] = self._current_root(root)
            values += self.roots[mount] != root
        for subject, rotation in self.rotations.items():
            if rotation.mount == mount:
                sealed = self._current_rotation(rotation)
                values += (sealed.sealed != rotation.sealed) + (sealed.fresh_sealed != rotation.fresh_sealed)
                self.rotations[subject] = sealed
        return values

    def _current_root(self, root: StoredRoot) -> StoredRoot:
        """Return a root as it is sealed under the data key in use."""
        return replace(root, sealed=self._reseal(root.sealed, root_context(root.mount), str(root.version)))

    def _current_rotation(self, rotation: Rotation) -> Rotation:
        """Return a rotation with its secrets under the data key in use."""
        place = key_context(rotation.subject)
        return replace(
            rotation,
            sealed=self._reseal(rotation.sealed, place, rotation.current),
            fresh_sealed=self._reseal(rotation.fresh_sealed, place, rotation.fresh_version),
        )

    def _reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        return self.seals.reseal(sealed, context, version) if self.seals and sealed else sealed

    def _require_authentic_rotation(self, subject: str) -> None:
        """Raise ``RowTampered`` if somebody edited a rotation."""
        if key_context(subject) in self.tampered:
            raise RowTampered("rotations", subject)
