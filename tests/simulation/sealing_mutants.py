"""Planted bugs of the data keys; see ``mutants.py``."""

from __future__ import annotations

from typing import Any

from lessor_server.engine.upkeep.sealing_keys import RotatedDataKey, SealingKeys
from tests.simulation.mutants import Patch, mutant_in

SCENARIO = "rotate sealing key"


@mutant_in(SCENARIO)
def rotation_of_the_data_key_not_finished(patch: Patch) -> None:
    """No start finishes what an earlier process began."""

    async def nothing(_: Any) -> None:
        return None

    patch.set(SealingKeys, "finish_earlier", nothing)


@mutant_in(SCENARIO)
def data_key_dropped_too_early(patch: Patch) -> None:
    """The old data key is deleted before the rows are sealed again."""

    async def finish(self: Any, _: str) -> RotatedDataKey:
        active = next(key.id for key in await self._store.list_data_keys() if key.is_active)
        await self._store.drop_data_keys(active)
        self._keys.use(active)
        await self._store.reseal_mount("")
        self._keys.forget_all_but(active)
        return RotatedDataKey(active, 0)

    patch.set(SealingKeys, "_finish", finish)
