"""Checks the measurement of accounts in virtual time."""

from __future__ import annotations

import asyncio

from lessor_server.domain.aws.iam_calls import UserRoom
from lessor_server.engine.engine import EngineConfig
from lessor_server.engine.meter import AccountGauges
from tests.support.engine_world import World, world
from tests.support.rotating import rotate, rotating
from tests.support.virtual_loop import virtual

ON = EngineConfig(measure_accounts=True)
NOTHING = AccountGauges(None)


def account(w: World, mount: str = "aws") -> AccountGauges | None:
    return w.engine.read_gauges().accounts.get(mount)


async def measured(w: World) -> AccountGauges:
    """Return the first measurement."""
    await w.until(lambda: account(w) is not None, 120)
    found = account(w)
    assert found is not None
    return found


@virtual
async def test_users_and_quota_are_measured_each_hour() -> None:
    async with world(limits=ON) as w:
        before = await measured(w)
        assert before.room is not None
        assert before.room.quota == w.iam.quotas.users
        await w.issue(ttl=7200)
        await asyncio.sleep(3700)
        after = account(w)
        assert after is not None
        assert after.room == UserRoom(before.room.users + 1, before.room.quota)


@virtual
async def test_the_age_of_a_key_is_that_of_the_key_in_use() -> None:
    """After a rotation the new key is measured within two minutes."""
    async with rotating(limits=ON) as w:
        await w.until(lambda: (account(w) or NOTHING).key_created_us > 0, 4000)
        before = account(w) or NOTHING
        await asyncio.sleep(600)
        await rotate(w)
        rotated_us = w.clocks.aws() * 1e6
        await w.until(lambda: (account(w) or NOTHING).key_created_us > before.key_created_us, 130)
        assert abs((account(w) or NOTHING).key_created_us - rotated_us) < 10_000_000


@virtual
async def test_no_account_is_measured_unless_metrics_are_on() -> None:
    async with world() as w:
        await asyncio.sleep(3700)
        assert account(w) is None
        assert "GetAccountSummary" not in w.aws.actions()


@virtual
async def test_an_account_that_does_not_answer_is_measured_when_it_does() -> None:
    async with world(limits=ON) as w:
        w.aws.away = True
        await asyncio.sleep(300)
        assert account(w) is None
        w.aws.away = False
        await measured(w)


@virtual
async def test_a_mount_that_is_removed_is_forgotten() -> None:
    async with world(limits=ON) as w:
        await measured(w)
        await w.engine.mount_remover.disable("aws", force=False, by="test")
        await w.until(lambda: account(w) is None, 600)
