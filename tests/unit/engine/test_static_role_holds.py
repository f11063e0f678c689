"""Checks static roles that are held, because another system still rotates their users."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lessor_server.domain.errors.preconditions import (
    KeyLimit,
    RootNotSet,
    StaticRoleHeld,
    StaticUserTaken,
    StaticUserUnknown,
)
from lessor_server.domain.rotation import static_subject
from lessor_server.domain.static_role import StaticRole
from tests.support.engine_world import World
from tests.support.rotating import USER, credentials, keys_of, put, rotate_static, rotating, row_of, static
from tests.support.virtual_loop import virtual

SUBJECT = static_subject("aws", USER)
LONG = 2 * 3600.0
"""Longer than the period of the roles."""


def held(role: StaticRole | None = None) -> StaticRole:
    """Return a static role that is held."""
    return replace(role or static(period=3600.0), held=True)


async def resume(w: World, name: str = USER, *, delete_other_key: bool = False) -> str:
    """Release a static role as an operator does, and return its key's id."""
    row = await w.engine.static_roles.resume("aws", name, "test", delete_other_key=delete_other_key)
    return row.current


@virtual
async def test_a_held_role_gets_no_key_until_it_is_resumed() -> None:
    async with rotating() as w:
        row = await put(w, held())
        assert (row.held, row.current, row.next_us) == (True, "", 0)
        await asyncio.sleep(LONG)
        assert keys_of(w, USER) == {}
        with pytest.raises(StaticRoleHeld):
            await credentials(w)
        with pytest.raises(StaticRoleHeld):
            await rotate_static(w)
        key = await resume(w)
        assert keys_of(w, USER) == {key: "Active"}
        assert (await credentials(w)).access_key_id == key
        row = await row_of(w, SUBJECT)
        assert (row.held, row.next_us > w.store.now()) == (False, True)


@virtual
async def test_resuming_twice_makes_one_key() -> None:
    async with rotating() as w:
        await put(w, held())
        assert await resume(w) == await resume(w)
        assert len(keys_of(w, USER)) == 1


@virtual
async def test_a_held_role_stays_held_when_it_is_put_again() -> None:
    """Only resuming releases it."""
    async with rotating() as w:
        await put(w, held())
        row = await put(w, static(period=7200.0))
        assert (row.held, row.current, row.schedule) == (True, "", static(period=7200.0).schedule)
        assert keys_of(w, USER) == {}


@virtual
async def test_a_role_with_a_key_can_be_held() -> None:
    """Its key can still be read, and is not rotated."""
    async with rotating() as w:
        key = (await put(w, static(period=3600.0))).current
        await put(w, held())
        await asyncio.sleep(LONG)
        assert (await credentials(w)).access_key_id == key
        with pytest.raises(StaticRoleHeld):
            await rotate_static(w)
        assert await resume(w) == key
        await asyncio.sleep(LONG)
        assert (await credentials(w)).access_key_id != key


@virtual
async def test_a_held_role_needs_no_root_and_its_user_is_checked_when_it_is_resumed() -> None:
    async with rotating() as w:
        await w.engine.mounts.enable(replace(await w.engine.mounts.get("aws"), name="other"), "test")
        role = replace(held(static("nobody")), mount="other")
        row = await w.engine.static_roles.put(role, "test", delete_other_key=False)
        assert (row.held, row.user_id) == (True, "")
        with pytest.raises(RootNotSet):
            await w.engine.static_roles.resume("other", "nobody", "test", delete_other_key=False)
        assert (await row_of(w, static_subject("other", "nobody"))).held
        with pytest.raises(StaticUserUnknown):
            await put(w, held(static("nobody")))


@virtual
async def test_a_user_that_another_role_has_is_not_resumed() -> None:
    """While AWS was away, it was not known whose user it is."""
    async with rotating() as w:
        w.aws.away = True
        await put(w, held(static("second", username=USER)))
        w.aws.away = False
        await put(w)
        with pytest.raises(StaticUserTaken):
            await resume(w, "second")
        assert (await row_of(w, static_subject("aws", "second"))).held


@virtual
async def test_a_resumption_that_is_refused_leaves_the_role_held() -> None:
    """So no retry creates a key that nobody expects."""
    async with rotating() as w:
        for _ in range(2):
            w.iam.create_access_key(USER)
        await put(w, held())
        with pytest.raises(KeyLimit):
            await resume(w)
        row = await row_of(w, SUBJECT)
        assert (row.held, row.due_us, row.next_us) == (True, 0, 0)
        key = await resume(w, delete_other_key=True)
        assert len(keys_of(w, USER)) == 2
        assert key in keys_of(w, USER)


@virtual
async def test_a_held_role_can_be_deleted() -> None:
    async with rotating() as w:
        await put(w, held())
        assert await w.engine.static_roles.delete("aws", USER, "test") == ()
        assert await w.engine.static_roles.list("aws", "", 9) == []
