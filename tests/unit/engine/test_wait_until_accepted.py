"""Checks the wait for a key that AWS accepts: three consecutive checks, never longer than it may take."""

from __future__ import annotations

import asyncio
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
async def test_a_key_is_usable_after_three_good_looks_half_a_second_apart() -> None:
    """Where AWS accepts the key at once, three looks are made and no more."""
    async with world() as w:
        made, _ = await waits(w, 30)
        assert made.usable
        assert [later - earlier for earlier, later in pairwise(looks(w))] == pytest.approx([0.55, 0.55])


@virtual
async def test_nobody_who_did_not_ask_waits() -> None:
    """Without a wait the key is not tried, and nothing is claimed about it."""
    async with world() as w:
        made, _ = await waits(w, 0)
        assert not made.usable
        assert looks(w) == []


@virtual
async def test_a_look_that_fails_begins_the_count_again() -> None:
    """Three looks must succeed one after another: a refusal after two good ones asks for three more."""
    async with world() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey", nth=3, status=403, code="InvalidClientTokenId"))
        made, _ = await waits(w, 30)
        assert made.usable
        assert len(looks(w)) == 3 + CHECKS


@virtual
async def test_a_key_that_aws_accepts_late_is_waited_for() -> None:
    """The answer comes with ``usable`` once AWS knows the key, and the wait begins no sooner than ACTIVE."""
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
async def test_a_key_that_is_not_accepted_in_time_is_handed_out_as_such(kind: Kind) -> None:
    """After the wait the credential comes with ``usable`` false, however AWS failed to accept it."""
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
    """However long the caller would wait, the answer comes half a second before its deadline."""
    async with world() as w:
        w.aws.faults.add(Fault(kind, "VerifyKey"))
        made, took = await waits(w, 300, seconds=10)
        assert not made.usable
        assert took == pytest.approx(9.5)


@virtual
async def test_the_wait_ends_with_the_lease() -> None:
    """A wait longer than the lease's life is over when the lease is, and says that the key is not usable."""
    async with world() as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey"))
        start = w.now()
        made = await w.issue(ttl=10, wait_usable=30)
        assert not made.usable
        assert w.now() - start == pytest.approx(10.1)


@virtual
async def test_a_key_whose_lease_was_ended_meanwhile_is_not_usable() -> None:
    """A session's key is accepted still when its lease was revoked; it is not said to be usable."""
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
async def test_a_store_that_fails_during_the_wait_costs_nobody_the_credential(read: str) -> None:
    """Whatever goes wrong after ACTIVE, the caller gets the key that was made for it."""
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
async def test_a_caller_that_goes_away_during_the_wait_leaves_nothing() -> None:
    """Until its answer is given a credential is nobody's: it is revoked at once, not at its expiry."""
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
    """While the first caller waits for its key to be usable, another of the same request gets that key."""
    async with world() as w:
        await bound(w)
        request = "11111111-1111-4111-8111-111111111111"
        first = asyncio.get_running_loop().create_task(w.issue(request=request, wait_usable=30))
        await asyncio.sleep(0.5)
        again = await w.issue(request=request, wait_usable=30)
        assert again == await first
        assert again.usable
