"""Bugs planted in the rotation of keys; see ``mutants.py``. They are looked for in its scenarios first."""

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
def lost_key_not_looked_for(patch: Patch) -> None:
    """After an unknown answer another key is made without a look at what the first one made."""

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
    """The old key of a root is switched off and never deleted."""

    async def forgotten(self: Any) -> None:
        await self._held.move(steps.retire(self.row))

    patch.set(RotationRun, "_delete_previous", forgotten)


@mutant_in("delete static")
def deleted_role_leaves_its_key(patch: Patch) -> None:
    """A static role that is deleted is forgotten, and its key stays on AWS."""

    async def forgotten(self: Any) -> None:
        await self._held.forget()

    patch.set(RotationRun, "_end", forgotten)


@mutant_in("disable static")
def disabled_mount_leaves_keys(patch: Patch) -> None:
    """The static roles of a mount that is disabled are forgotten with it, and their keys stay on AWS."""

    def forgotten(self: Any, rows: list[Any]) -> None:
        for row in rows:
            self._work.start(self._store.forget_static(row.mount))

    patch.set(MountRemover, "_delete_static", forgotten)


@mutant_in("rotate chain")
def chain_lost_at_the_switch(patch: Patch) -> None:
    """The new key of a root is put in place without the chain that went on from the old one."""

    def bare(value: Any, **changes: Any) -> Any:
        return replace(value, **changes, **({"assume_chain": ()} if "access_key" in changes else {}))

    patch.set(rotation_run, "replace", bare)


@mutant_in("rotate root")
def new_key_not_durable(patch: Patch) -> None:
    """A new key is in use before the row knows of it: only the root's config does."""
    create = UserKeys.create

    async def twice(self: Any, row: Any) -> Any:
        await create(self, row)
        return await create(self, row)

    patch.set(UserKeys, "create", twice)
