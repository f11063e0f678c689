"""Checks the rotation of a root during outages of AWS and store errors."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lessor_server.domain.errors.base import Aborted, AwsUnavailable, StoreUnavailable
from lessor_server.domain.events import LostKeyDeleted
from lessor_server.domain.rotation import CLAIM_US, Phase
from tests.support import builders
from tests.support.iam_faults import Fault, Kind
from tests.support.rotating import keys_of, root_key, rotate, rotating, row_of
from tests.support.virtual_loop import virtual


@virtual
async def test_a_key_that_could_not_be_verified_is_kept_until_aws_answers() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DROP, "VerifyKey"))
        with pytest.raises(AwsUnavailable) as raised:
            await rotate(w)
        assert "revoked" not in raised.value.message
        assert (await row_of(w)).phase is Phase.MADE
        assert await root_key(w) == builders.ROOT_KEY
        w.aws.faults.clear()
        await asyncio.sleep(120)
        assert keys_of(w) == {await root_key(w): "Active"} != {builders.ROOT_KEY: "Active"}


@virtual
async def test_two_unanswered_checks_end_the_wait_of_the_caller() -> None:
    """The key is kept, and verified later."""
    async with rotating() as w:
        for proof in ("VerifyKey", "VerifyKeyOnIam"):
            w.aws.faults.add(Fault(Kind.HANG, proof))
        began = w.now()
        with pytest.raises(AwsUnavailable):
            await rotate(w)
        assert w.now() - began < 16
        assert w.aws.actions().count("VerifyKey") == 2
        row = await row_of(w)
        assert (row.phase, row.attempts) == (Phase.MADE, 0)
        assert await root_key(w) == builders.ROOT_KEY
        w.aws.faults.clear()
        await asyncio.sleep(120)
        assert keys_of(w) == {row.fresh: "Active"} == {await root_key(w): "Active"}


@virtual
async def test_one_unanswered_check_and_a_throttled_one_do_not_end_the_wait() -> None:
    async with rotating() as w:
        for proof in ("VerifyKey", "VerifyKeyOnIam"):
            w.aws.faults.add(Fault(Kind.HANG, proof, times=1))
            w.aws.faults.add(Fault(Kind.THROTTLE, proof, nth=2, times=3))
            w.aws.faults.add(Fault(Kind.HANG, proof, nth=5, times=1))
        assert await rotate(w) == await root_key(w)
        assert w.aws.actions().count("VerifyKey") == 8


@virtual
async def test_a_store_error_delays_a_rotation_only_until_it_is_over() -> None:
    """The claim is released as soon as the store works."""
    async with rotating() as w:
        rotating_ = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "CreateAccessKey" in w.aws.actions())
        w.store.fail_writes = True
        with pytest.raises(StoreUnavailable):
            await rotating_
        await asyncio.sleep(5)
        w.store.fail_writes = False
        await asyncio.sleep(20)
        assert keys_of(w)[await root_key(w)] == "Active"
        assert await root_key(w) != builders.ROOT_KEY
        assert len(w.events.of(LostKeyDeleted)) == 1


@virtual
async def test_a_rotation_requested_after_a_store_error_is_served_immediately() -> None:
    async with rotating() as w:
        rotating_ = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "ListAccessKeys" in w.aws.actions())
        w.store.fail_writes = True
        with pytest.raises(StoreUnavailable):
            await rotating_
        w.store.fail_writes = False
        assert await rotate(w) == await root_key(w)


@virtual
async def test_a_row_claimed_by_another_replica_is_not_released() -> None:
    async with rotating() as w:
        rotating_ = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "ListAccessKeys" in w.aws.actions())
        w.store.fail_writes = True
        with pytest.raises(StoreUnavailable):
            await rotating_
        row = await row_of(w)
        theirs = replace(row, generation=row.generation + 1, due_us=w.store.now() + CLAIM_US)
        w.store.rotations[row.subject] = theirs
        w.store.fail_writes = False
        with pytest.raises(Aborted):
            await rotate(w)
        await asyncio.sleep(10)
        assert await row_of(w) == theirs


@virtual
async def test_a_rotation_during_an_outage_is_unavailable() -> None:
    """Nothing was sent, so no lost key is searched for."""
    async with rotating() as w:
        w.aws.away = True
        with pytest.raises(AwsUnavailable):
            await rotate(w)
        w.aws.away = False
        await asyncio.sleep(60)
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
