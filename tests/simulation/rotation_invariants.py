"""Invariants of rotated keys, checked at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.rotation import Phase, Rotation
from tests.support import builders
from tests.support.iam_home import ROOT

STATIC_USER = "billing"
"""The user of the scenarios' static roles."""

if TYPE_CHECKING:
    from tests.simulation.invariants import Found
    from tests.simulation.world import World


def one_root_key_lives(world: World, _: None) -> Found:
    """A rotated root has one key, which is valid and is the one that the mount uses."""
    row, user = world.store.rotations.get("aws/root"), world.mine.users.get(ROOT)
    if row is None or user is None:
        return None
    used = row.current or builders.ROOT_KEY
    keys = {key.id: key.status for key in user.keys.values()}
    return (
        None if keys == {used: "Active"} else ("", f"the mount uses {used}, and the root's keys are {keys}")
    )


def static_keys_are_known(world: World, _: None) -> Found:
    """The user of a static role has the keys that its row knows and those of others, and no other.

    Without a row, as the role was deleted or never came to be, it has only those of others.
    """
    user = world.mine.users.get(STATIC_USER)
    if user is None:
        return None
    rows = [row for row in world.store.rotations.values() if not row.is_root]
    known = {key for row in rows for key in (row.current, row.previous)} | world.strange_keys
    keys = {key.id for key in user.keys.values()}
    if keys != known - {""}:
        return "", f"of {STATIC_USER} {sorted(known)} are known, and AWS has {sorted(keys)}"
    return None


def rotations_become_idle(world: World, _: None) -> Found:
    """In the end the row of a rotation waits only for its next time."""
    for row in world.store.rotations.values():
        if not rests(row):
            return "", f"{row.subject} is {row.phase.value}: {row.last_error}"
    return None


def rests(row: Rotation) -> bool:
    """Return whether a row waits only for its next rotation."""
    return row.phase is Phase.IDLE and not row.last_check_us and not row.ending


AT_END = (rotations_become_idle, one_root_key_lives, static_keys_are_known)
