"""Planted bugs of rotations; see ``mutants.py``. They are searched for in its scenarios first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lessor_server.domain import rotation as steps
from lessor_server.engine.rotation import rotation_run
from lessor_server.engine.rotation.rotation_run import RotationRun
from lessor_server.engine.rotation.user_keys import UserKeys
from lessor_server.engine.upkeep.mount_remover import MountRemover
from tests.simulation.mutants import Patch, mutant_in


@mutant_in("rotate root")
def lost_key_not_deleted(patch: Patch) -> None:
    """After an unknown answer another key is created without deleting the first one."""

    async def nothing(_: Any, __: Any = None) -> str:
        return ""

    patch.set(RotationRun, "_find_lost", nothing)
    patch.set(RotationRun, "_delete_lost", nothing)


@mutant_in("static beside")
def intent_without_what_was_there(patch: Patch) -> None:
    """The intent does not say which keys AWS listed before it."""
    intend = steps.intend
    patch.set(steps, "intend", lambda row, _: intend(row, ()))


@mutant_in("rotate root")
def old_root_key_left(patch: Patch) -> None:
    """The old key of a root is set inactive and never deleted."""

    async def forgotten(self: Any) -> None:
        await self._held.move(steps.retire(self.row))

    patch.set(RotationRun, "_delete_previous", forgotten)


@mutant_in("delete static")
def deleted_role_leaves_its_key(patch: Patch) -> None:
    """A deleted static role is dropped, and its key stays on AWS."""

    async def forgotten(self: Any) -> None:
        await self._held.forget()

    patch.set(RotationRun, "_end", forgotten)


@mutant_in("disable static")
def disabled_mount_leaves_keys(patch: Patch) -> None:
    """The static roles of a disabled mount are dropped with it, and their keys stay on AWS."""

    def forgotten(self: Any, rows: list[Any]) -> None:
        for row in rows:
            self._work.start(self._store.forget_static(row.mount))

    patch.set(MountRemover, "_delete_static", forgotten)


@mutant_in("rotate chain")
def chain_lost_at_the_switch(patch: Patch) -> None:
    """The new key of a root is stored without the assume chain of the old one."""

    def bare(value: Any, **changes: Any) -> Any:
        return replace(value, **changes, **({"assume_chain": ()} if "access_key" in changes else {}))

    patch.set(rotation_run, "replace", bare)


@mutant_in("rotate root")
def new_key_not_durable(patch: Patch) -> None:
    """A new key is in use before its row has it: only the root's config does."""
    create = UserKeys.create

    async def twice(self: Any, row: Any) -> Any:
        await create(self, row)
        return await create(self, row)

    patch.set(UserKeys, "create", twice)
