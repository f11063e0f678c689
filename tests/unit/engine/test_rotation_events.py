"""Checks the events of rotations."""

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
async def test_the_event_of_a_rotation_names_its_caller() -> None:
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
async def test_the_event_of_a_scheduled_rotation_names_no_caller() -> None:
    """Nor does one that is retried after a caller's attempt failed."""
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
async def test_each_read_of_a_static_key_is_an_event() -> None:
    """With the key's id, but not its secret."""
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
async def test_an_old_root_key_left_by_a_removed_mount_is_reported_once() -> None:
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
async def test_an_old_key_that_cannot_be_deleted_is_reported_as_left() -> None:
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
async def test_a_mount_with_idle_rotations_reports_no_key_left() -> None:
    async with rotating() as w:
        await put(w)
        await rotate_static(w)
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        await w.until(lambda: "aws" not in w.store.mounts, 120)
        assert w.events.of(KeyLeft) == []
