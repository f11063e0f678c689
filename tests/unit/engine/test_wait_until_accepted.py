"""Checks the wait until AWS accepts a new key."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from lessor_server.engine.issuing.request import Credentials
from lessor_server.engine.issuing.wait_until_accepted import CHECKS
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

FAILING = (Kind.REFUSE, Kind.HANG, Kind.THROTTLE, Kind.DROP)


def looks(w: World) -> list[float]:
    """Return when the key was tried, in the loop's seconds."""
    return [one.start for one in w.aws.sent if one.action == "VerifyKey"]


async def waits(w: World, wait: float, seconds: float = 60.0) -> tuple[Credentials, float]:
    """Issue with a wait until the key is usable; return the credential and how long it all took."""
    await bound(w)
    start = w.now()
    made = await w.issue(seconds=seconds, wait_usable=wait)
    return made, w.now() - start


@virtual
async def test_a_key_is_usable_after_three_good_checks_half_a_second_apart() -> None:
    async with world() as w:
        made, _ = await waits(w, 30)
        assert made.usable
        assert [later - earlier for earlier, later in pairwise(looks(w))] == pytest.approx([0.55, 0.55])


@virtual
async def test_without_the_option_a_key_is_not_checked() -> None:
    async with world() as w:
        made, _ = await waits(w, 0)
        assert not made.usable
        assert looks(w) == []


@virtual
async def test_a_request_without_a_wait_has_that_of_its_role_and_one_with_a_wait_its_own() -> None:
    async with world() as w:
        await bound(w)
        await w.put_role(builders.role(wait_usable=timedelta(seconds=30)))
        assert (await w.issue(wait_usable=None)).usable
        assert not (await w.issue(wait_usable=0.0)).usable


@virtual
async def test_a_failed_check_restarts_the_count() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey", nth=3, status=403, code="InvalidClientTokenId"))
        made, _ = await waits(w, 30)
        assert made.usable
        assert len(looks(w)) == 3 + CHECKS


@virtual
async def test_a_key_that_aws_accepts_late_is_waited_for() -> None:
    """The wait begins when the lease is ACTIVE."""
    async with world(visible_after=3.0) as w:
        made, _ = await waits(w, 30)
        assert made.usable
        key = w.iam.users[made.lease.footprint.user_name.casefold()].keys[made.lease.access_key_id]
        accepted = [
            one for one in w.aws.sent if one.action == "VerifyKey" and w.clocks.aws() >= key.usable_at
        ]
        assert len(accepted) >= CHECKS
        assert w.points.passed.index("activate done") < w.points.passed.index("VerifyKey sent")


@pytest.mark.parametrize(
    "kind", [Kind.REFUSE, Kind.HANG, Kind.THROTTLE, Kind.DROP], ids=lambda kind: kind.value
)
@virtual
async def test_a_key_that_is_not_accepted_in_time_is_returned_as_not_usable(kind: Kind) -> None:
    async with world() as w:
        w.aws.faults.add(Fault(kind, "VerifyKey"))
        made, took = await waits(w, 5)
        assert not made.usable
        assert made.secret
        assert took == pytest.approx(5.1)
        assert len(w.users()) == 1


@pytest.mark.parametrize("kind", FAILING, ids=lambda kind: kind.value)
@virtual
async def test_half_a_second_of_the_deadline_is_kept_for_the_answer(kind: Kind) -> None:
    async with world() as w:
        w.aws.faults.add(Fault(kind, "VerifyKey"))
        made, took = await waits(w, 300, seconds=10)
        assert not made.usable
        assert took == pytest.approx(9.5)


@virtual
async def test_the_wait_ends_with_the_lease() -> None:
    async with world() as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey"))
        start = w.now()
        made = await w.issue(ttl=10, wait_usable=30)
        assert not made.usable
        assert w.now() - start == pytest.approx(10.1)


@virtual
async def test_a_key_whose_lease_ended_during_the_wait_is_not_usable() -> None:
    """AWS still accepts the key of a revoked session."""
    async with world() as w:
        await w.put_role(builders.assumed(w.iam.add_role("target").arn))
        waiting = asyncio.get_running_loop().create_task(w.issue(role="assumed", wait_usable=30))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        (lease_id,) = w.states()
        await w.revoke(lease_id)
        assert not (await waiting).usable
        assert w.aws.actions().count("VerifyKey") == CHECKS


@pytest.mark.parametrize("read", ["get_root", "get"])
@virtual
async def test_a_store_error_during_the_wait_does_not_lose_the_credential(read: str) -> None:
    async with world() as w:
        await bound(w)
        if read == "get":
            w.points.slow["activate done"] = 1.0
        else:
            w.store.fails.add(read)
        issue = asyncio.get_running_loop().create_task(w.issue(wait_usable=5))
        await w.until(lambda: "activate" in w.points.passed)
        w.store.fails.add(read)
        made = await issue
        assert made.secret
        assert not made.usable


@virtual
async def test_a_request_cancelled_during_the_wait_is_revoked_immediately() -> None:
    async with world() as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey"))
        caller = asyncio.get_running_loop().create_task(w.issue(wait_usable=30))
        await asyncio.sleep(5)
        caller.cancel()
        await w.until_gone(seconds=5)
        assert w.users() == []


@virtual
async def test_a_repeat_during_the_wait_gets_the_same_key() -> None:
    async with world() as w:
        await bound(w)
        request = "11111111-1111-4111-8111-111111111111"
        first = asyncio.get_running_loop().create_task(w.issue(request=request, wait_usable=30))
        await asyncio.sleep(0.5)
        again = await w.issue(request=request, wait_usable=30)
        assert again == await first
        assert again.usable
