"""Checks that nothing is granted from a row that somebody else wrote, and that it is still revoked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import ErrorKind, StoreUnavailable
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.events import SealingKeyRotated
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import LeaseId
from lessor_server.engine.leases import Outcome
from tests.support import builders
from tests.support.engine_world import world
from tests.support.virtual_loop import virtual

REQUEST = "11111111-1111-4111-8111-111111111111"
SESSION = "arn:aws:iam::123456789012:role/target"


@virtual
async def test_an_edited_lease_is_neither_renewed_nor_issued_again_but_revoked() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, request=REQUEST)
        w.store.tampered.add(f"leases/{made.lease.id}")
        lease_id = LeaseId.parse(made.lease.id)
        assert (await w.engine.leases.lookup(lease_id)).tampered
        with pytest.raises(RowTampered) as raised:
            await w.engine.leases.renew(lease_id, timedelta(seconds=60), "root")
        assert (raised.value.kind, raised.value.reason) == (ErrorKind.PRECONDITION, "ROW_TAMPERED")
        with pytest.raises(RowTampered):
            await w.issue(ttl=600, request=REQUEST)
        assert w.aws.actions().count("CreateAccessKey") == 1
        revoked = await w.engine.leases.revoke(lease_id, sync=True, by="root")
        assert revoked.outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_an_edited_lease_expires() -> None:
    async with world() as w:
        made = await w.issue(ttl=60)
        w.store.tampered.add(f"leases/{made.lease.id}")
        await asyncio.sleep(70)
        assert w.store.rows[made.lease.id].lease.state is State.GONE
        assert w.users() == []


@virtual
async def test_an_edited_session_is_not_issued_again() -> None:
    async with world(role=builders.assumed(SESSION, "app")) as w:
        w.iam.add_role("target")
        made = await w.issue(ttl=900, request=REQUEST)
        w.store.tampered.add(f"leases/{made.lease.id}")
        with pytest.raises(RowTampered):
            await w.issue(ttl=900, request=REQUEST)


@pytest.mark.parametrize("place", ["mounts/aws", "roots/aws", "roles/aws/app"])
@virtual
async def test_nothing_is_issued_or_renewed_by_an_edited_row(place: str) -> None:
    async with world() as w:
        made = await w.issue(ttl=600)
        w.store.tampered.add(place)
        w.aws.sent.clear()
        with pytest.raises(RowTampered):
            await w.issue(ttl=600)
        assert w.aws.sent == []
        with pytest.raises(RowTampered):
            await w.engine.leases.renew(LeaseId.parse(made.lease.id), None, "root")
        revoked = await w.engine.leases.revoke(LeaseId.parse(made.lease.id), sync=True, by="root")
        assert revoked.outcome is Outcome.GONE


@virtual
async def test_an_edited_role_works_again_once_it_was_deleted_and_written() -> None:
    async with world() as w:
        w.store.tampered.add("roles/aws/app")
        await w.engine.roles.delete("aws", "app", "root")
        await w.engine.roles.put("aws", "app", "", lambda _: builders.role(), "root")
        assert await w.issue(ttl=600)


@virtual
async def test_a_rotation_of_the_data_key_goes_on_without_its_caller() -> None:
    async with world() as w:
        before = w.store.data_keys
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await w.engine.sealing_keys.rotate("root")
        await w.events.until(SealingKeyRotated)
        assert len(w.store.data_keys) == 1
        assert w.store.data_keys != before
        assert await w.issue(ttl=600)


@virtual
async def test_a_rotation_that_the_store_stopped_is_finished_when_it_writes_again() -> None:
    async with world() as w:
        w.store.fails.add("drop_data_keys")
        with pytest.raises(StoreUnavailable):
            await w.engine.sealing_keys.rotate("root")
        assert len(w.store.data_keys) == 2
        await asyncio.sleep(5)
        w.store.fails.clear()
        event = await w.events.until(SealingKeyRotated)
        assert [key.id for key in w.store.data_keys] == [event.key_id]


@virtual
async def test_two_rotations_at_the_same_time_take_turns() -> None:
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(w.engine.sealing_keys.rotate("root")) for _ in range(2)]
        one, two = (task.result() for task in tasks)
        assert one.key_id != two.key_id
        assert w.store.data_keys[0].id in {one.key_id, two.key_id}
        assert len(w.store.data_keys) == 1
        assert await w.issue(ttl=600)
