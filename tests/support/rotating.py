"""Shared parts of rotation tests: a world whose root is a real user, and checks of its keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lessor_server.domain.root import Hop, RootConfig
from lessor_server.domain.rotation import Rotation
from lessor_server.domain.schedule import Schedule
from lessor_server.domain.static_role import StaticRole
from lessor_server.engine.rotation.static_roles import StaticCredentials
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.iam_home import ROOT

USER = "billing"


@asynccontextmanager
async def rotating(**given: Any) -> AsyncIterator[World]:
    """Make a world whose root is a user of the account, beside a user for static roles."""
    async with world(**given) as w:
        w.iam.adopt_root(builders.ROOT_KEY)
        w.iam.create_user(USER).visible_at = 0.0
        yield w


def keys_of(w: World, user: str = ROOT) -> dict[str, str]:
    """Return the user's keys on the account, ids to status."""
    return {key.id: key.status for key in w.iam.users[user].keys.values()}


async def root_key(w: World, mount: str = "aws") -> str:
    """Return the id of the key that a mount's root has."""
    return (await w.engine.mounts.get_root(mount)).config.access_key


async def rotate(w: World, *, delete_other_key: bool = False) -> str:
    """Rotate the root as an operator does, and return the new key's id."""
    return await w.engine.root_keys.rotate("aws", "test", delete_other_key=delete_other_key)


async def set_root(w: World, key_id: str | None = None, **fields: Any) -> None:
    """Change fields of the root, and its key where one is given; the rest stays."""

    def change(before: RootConfig | None) -> RootConfig:
        assert before is not None
        config = replace(before, **fields)
        return replace(config, access_key=key_id) if key_id else config

    await w.engine.mounts.set_root("aws", "", change, "test")


def static(
    name: str = USER,
    period: float = 7 * 86400.0,
    live_keys: int = 2,
    username: str = "",
    chain: tuple[Hop, ...] = (),
) -> StaticRole:
    """Return a static role that rotates each ``period`` seconds."""
    return StaticRole("aws", name, username or name, Schedule(timedelta(seconds=period)), live_keys, chain)


async def put(w: World, role: StaticRole | None = None, *, delete_other_key: bool = False) -> Rotation:
    """Put a static role as an operator does."""
    return await w.engine.static_roles.put(role or static(), "test", delete_other_key=delete_other_key)


async def row_of(w: World, subject: str = "aws/root") -> Rotation:
    """Return a rotation's row."""
    row = await w.store.get_rotation(subject)
    assert row is not None
    return row


async def credentials(w: World, name: str = USER) -> StaticCredentials:
    """Read a static role's key as a caller does."""
    return await w.engine.static_roles.credentials("aws", name, "test")


async def rotate_static(w: World, name: str = USER) -> str:
    """Rotate a static role and return its new key's id."""
    return (await w.engine.static_roles.rotate("aws", name, "test", delete_other_key=False)).current


def works(w: World, found: StaticCredentials) -> bool:
    """Return whether AWS accepts a key with this secret."""
    signer = found.access_key_id, found.secret.reveal(), ""
    return w.iam.prove("GetCallerIdentity", {}, signer).ok
