"""Checks what is told of rotations: who asked, who read a key, and which key is left behind."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import LessorError, StaticKeyPending
from lessor_server.domain.events import BY_CLOCK, KeyLeft, KeyRetired, Rotated, RotationFailed, StaticKeyRead
from lessor_server.domain.rotation import static_subject
from tests.support.iam_faults import Fault, Kind
from tests.support.rotating import (
    USER,
    credentials,
    keys_of,
    put,
    root_key,
    rotate_static,
    rotating,
    set_root,
    static,
)
from tests.support.virtual_loop import virtual

SUBJECT = static_subject("aws", USER)


@virtual
async def test_a_rotation_tells_who_asked_for_it() -> None:
    """The one who rotates, or who puts a new static role."""
    async with rotating() as w:
        new = await w.engine.root_keys.rotate("aws", "olga", delete_other_key=False)
        made = await w.engine.static_roles.put(static(), "piet", delete_other_key=False)
        again = await w.engine.static_roles.rotate("aws", USER, "rosa", delete_other_key=False)
        assert w.events.of(Rotated) == [
            Rotated("aws/root", new, "olga"),
            Rotated(SUBJECT, made.current, "piet"),
            Rotated(SUBJECT, again.current, "rosa"),
        ]


@virtual
async def test_a_rotation_by_the_clock_tells_so() -> None:
    """By schedule, and where it goes on by itself after somebody's attempt has failed."""
    async with rotating() as w:
        await set_root(w, rotation_period=timedelta(hours=1))
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(LessorError):
            await w.engine.static_roles.put(static(), "piet", delete_other_key=False)
        await asyncio.sleep(3600)
        assert [(one.subject, one.by) for one in w.events.of(RotationFailed)] == [(SUBJECT, "piet")]
        assert [one.by for one in w.events.of(Rotated)] == [BY_CLOCK] * len(w.events.of(Rotated))
        assert {one.subject for one in w.events.of(Rotated)} == {"aws/root", SUBJECT}


@virtual
async def test_whoever_reads_a_static_key_is_told_of() -> None:
    """With the key's id and never its secret; where there is no key yet nobody got one."""
    async with rotating() as w:
        made = await put(w)
        found = await w.engine.static_roles.credentials("aws", USER, "rosa")
        assert w.events.of(StaticKeyRead) == [StaticKeyRead(SUBJECT, made.current, "rosa")]
        assert found.secret.reveal() not in repr(w.events.of(StaticKeyRead))
        w.iam.create_user("other").visible_at = 0.0
        w.aws.faults.add(Fault(Kind.DROP, "CreateAccessKey"))
        with pytest.raises(LessorError):
            await put(w, static("other"))
        with pytest.raises(StaticKeyPending):
            await credentials(w, "other")
        assert len(w.events.of(StaticKeyRead)) == 1


async def stuck() -> None:
    """Let time pass until AWS has refused a rotation so often that its mount may go without it."""
    await asyncio.sleep(2 * 3600)


@virtual
async def test_an_old_root_key_that_goes_under_with_its_mount_is_told_once() -> None:
    """However often the store fails before the mount is removed."""
    async with rotating() as w:
        old = await root_key(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "UpdateAccessKey"))
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey"))
        await w.engine.root_keys.rotate("aws", "olga", delete_other_key=False)
        await stuck()
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        w.store.fail_writes = True
        await w.events.until(KeyLeft)
        await asyncio.sleep(10)
        assert "aws" in w.store.mounts
        w.store.fail_writes = False
        await w.until(lambda: "aws" not in w.store.mounts, 120)
        (left,) = w.events.of(KeyLeft)
        assert (left.subject, left.user_name, left.access_key_id) == ("aws/root", "root-of-lessor", old)


@virtual
async def test_an_old_key_that_is_left_is_not_said_to_be_retired() -> None:
    """Its root was set anew and AWS refuses to delete it: a person is told that it is there."""
    async with rotating() as w:
        old = await root_key(w)
        await w.engine.root_keys.rotate("aws", "olga", delete_other_key=False)
        w.iam.create_user("other").visible_at = 0.0
        await set_root(w, w.iam.create_access_key("other").id)
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey"))
        await asyncio.sleep(300)
        assert [left.access_key_id for left in w.events.of(KeyLeft)] == [old]
        assert w.events.of(KeyRetired) == []
        assert old in keys_of(w)


@virtual
async def test_a_mount_whose_rotations_rest_leaves_nothing_to_tell() -> None:
    """The keys of its static roles are deleted with it."""
    async with rotating() as w:
        await put(w)
        await rotate_static(w)
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        await w.until(lambda: "aws" not in w.store.mounts, 120)
        assert w.events.of(KeyLeft) == []
