"""Checks the rotation of a root's key: the answers, and the keys on the account."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.base import AwsUnavailable, KeyNotAccepted, LessorError, RootChanged
from lessor_server.domain.errors.preconditions import KeyLimit
from lessor_server.domain.events import KeyRetired, LostKeyDeleted, Rotated
from lessor_server.domain.lease import State
from lessor_server.domain.rotation import Phase
from tests.support import builders
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_home import ROOT
from tests.support.rotating import keys_of, root_key, rotate, rotating, row_of
from tests.support.virtual_loop import virtual


@virtual
async def test_the_new_key_is_in_use_and_the_old_one_is_deleted() -> None:
    """It is set inactive after 2 s and deleted after a minute."""
    async with rotating() as w:
        new = await rotate(w)
        assert new == await root_key(w) != builders.ROOT_KEY
        assert keys_of(w) == {builders.ROOT_KEY: "Active", new: "Active"}
        await asyncio.sleep(4)
        assert keys_of(w) == {builders.ROOT_KEY: "Inactive", new: "Active"}
        await asyncio.sleep(54)
        assert len(keys_of(w)) == 2
        await asyncio.sleep(4)
        assert keys_of(w) == {new: "Active"}
        await w.issue()
        assert w.events.of(Rotated) == [Rotated("aws/root", new, "test")]
        assert w.events.of(KeyRetired) == [KeyRetired("aws/root", builders.ROOT_KEY)]


@virtual
async def test_the_new_key_is_accepted_three_times_by_sts_and_iam_before_it_is_used() -> None:
    """AWS may need twenty seconds to accept it."""
    async with rotating() as w:
        w.iam.visible_after = 20.0
        began = w.now()
        new = await rotate(w)
        assert w.now() - began == pytest.approx(21.0, abs=1.0)
        proofs = [one.start for one in w.aws.sent if one.action == "VerifyKey"][-3:]
        assert proofs[0] - began > 20
        assert proofs[2] - proofs[0] >= 1.0
        assert w.iam.keys[new].secret == (await w.engine.mounts.get_root("aws")).config.secret_key.reveal()


@pytest.mark.parametrize("proof", ["VerifyKey", "VerifyKeyOnIam"])
@virtual
async def test_a_key_that_is_not_accepted_for_a_minute_is_deleted(proof: str) -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, proof, code="InvalidClientTokenId"))
        with pytest.raises(KeyNotAccepted):
            await rotate(w)
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
        assert await root_key(w) == builders.ROOT_KEY
        assert (await row_of(w)).phase is Phase.IDLE
        w.aws.faults.clear()
        assert await rotate(w) == await root_key(w)


@pytest.mark.parametrize("seconds", [59.4, 59.8, 60.0, 60.2])
@virtual
async def test_a_key_that_is_accepted_late_still_gets_three_checks(seconds: float) -> None:
    """The minute is only for refusals."""
    async with rotating() as w:
        w.iam.visible_after = seconds
        assert await rotate(w) == await root_key(w) != builders.ROOT_KEY


@virtual
async def test_issues_in_progress_go_on_with_the_new_key() -> None:
    async with rotating() as w:
        stop = False
        failures: list[LessorError] = []

        async def caller() -> None:
            while not stop:
                try:
                    await w.issue(ttl=30)
                except LessorError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
            for _ in range(2):
                await rotate(w)
                await asyncio.sleep(4)
            stop = True
        assert len(w.users()) > 100
        assert failures == []


@pytest.mark.parametrize("role", ["app", "assumed"])
@virtual
async def test_an_issue_with_an_outdated_root_version_reads_it_again(role: str) -> None:
    async with rotating() as w:
        await w.put_role(builders.assumed(w.iam.add_role("target").arn))
        await w.issue(role=role)
        w.points.slow["begin"] = 20.0
        issuing = asyncio.get_running_loop().create_task(w.issue(role=role))
        await w.until(lambda: w.points.passed.count("begin") == 2)
        await rotate(w)
        assert (await issuing).lease.state is State.ACTIVE
        assert w.points.passed.count("begin") == 3


@virtual
async def test_an_issue_whose_root_keeps_changing_is_aborted() -> None:
    """After three reads."""
    async with rotating() as w:
        w.points.slow["begin"] = 10.0
        issuing = asyncio.get_running_loop().create_task(w.issue())
        for _ in range(3):
            await rotate(w)
            await asyncio.sleep(9)
        with pytest.raises(RootChanged):
            await issuing
        assert "CreateUser" not in w.aws.actions()


@virtual
async def test_an_issue_that_outlives_the_old_key_continues_with_the_new_one() -> None:
    """Each call is signed when it is sent."""
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "PutUserPolicy", nth=1, times=6, code="ConcurrentModification"))
        issuing = asyncio.get_running_loop().create_task(w.issue())
        await w.until(lambda: "PutUserPolicy" in w.aws.actions())
        await rotate(w)
        await w.until(lambda: keys_of(w)[builders.ROOT_KEY] == "Inactive")
        assert not issuing.done()
        assert (await issuing).lease.access_key_id


@virtual
async def test_concurrent_rotations_are_one() -> None:
    async with rotating() as w:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(rotate(w)), group.create_task(rotate(w))
        assert first.result() == second.result()
        assert w.aws.actions().count("CreateAccessKey") == 1


@virtual
async def test_a_cancelled_rotation_goes_on() -> None:
    async with rotating() as w:
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "CreateAccessKey" in w.aws.actions())
        calling.cancel()
        await asyncio.sleep(70)
        assert keys_of(w) == {await root_key(w): "Active"} != {builders.ROOT_KEY: "Active"}


@virtual
async def test_an_immediate_second_rotation_deletes_the_retiring_key() -> None:
    async with rotating() as w:
        first = await rotate(w)
        second = await rotate(w)
        assert set(keys_of(w)) == {first, second}
        await asyncio.sleep(70)
        assert set(keys_of(w)) == {second}


# --- two keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Active", "Inactive"])
@virtual
async def test_a_second_key_of_others_is_named_and_not_deleted(status: str) -> None:
    """AWS allows two keys, and inactive ones count."""
    async with rotating() as w:
        other = w.iam.create_access_key(ROOT).id
        w.iam.update_access_key(ROOT, other, status)
        before = keys_of(w)
        with pytest.raises(KeyLimit) as raised:
            await rotate(w)
        assert other in str(raised.value)
        assert builders.ROOT_KEY in str(raised.value)
        assert keys_of(w) == before
        assert "CreateAccessKey" not in w.aws.actions()


@virtual
async def test_delete_other_key_deletes_the_key_that_the_root_does_not_use() -> None:
    async with rotating() as w:
        other = w.iam.create_access_key(ROOT).id
        new = await rotate(w, delete_other_key=True)
        assert other not in keys_of(w)
        await asyncio.sleep(70)
        assert set(keys_of(w)) == {new}


# --- answers that are lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.LOSE, Kind.HANG_AFTER, Kind.ERROR_AFTER])
@virtual
async def test_a_key_whose_secret_was_lost_is_deleted_before_another_is_created(kind: Kind) -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(kind, "CreateAccessKey", nth=1))
        new = await rotate(w)
        assert len(w.events.of(LostKeyDeleted)) == 1
        await asyncio.sleep(20 * 60)
        assert set(keys_of(w)) == {new}


@virtual
async def test_a_key_created_ten_minutes_late_is_deleted() -> None:
    """A signed request may take effect for 15 minutes."""
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DELAY, "CreateAccessKey", nth=1, seconds=600))
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey", nth=2))
        with pytest.raises(LessorError):
            await rotate(w)
        assert (await row_of(w)).last_check_us > 0
        await asyncio.sleep(620)
        assert len(keys_of(w)) == 2
        await asyncio.sleep(400)
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
        assert (await row_of(w)).last_check_us == 0


@virtual
async def test_the_next_rotation_deletes_a_late_key_first() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DELAY, "CreateAccessKey", nth=1, seconds=300))
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey", nth=2))
        with pytest.raises(LessorError):
            await rotate(w)
        await asyncio.sleep(400)
        assert len(keys_of(w)) == 2
        new = await rotate(w)
        await asyncio.sleep(20 * 60)
        assert set(keys_of(w)) == {new}


@virtual
async def test_a_late_request_of_an_inactive_key_has_no_effect() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.DELAY, "CreateAccessKey", nth=1, seconds=600))
        new = await rotate(w)
        await asyncio.sleep(20 * 60)
        assert set(keys_of(w)) == {new}


@virtual
async def test_a_second_lost_answer_is_left_to_the_next_attempt() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", times=2))
        with pytest.raises(AwsUnavailable):
            await rotate(w)
        await asyncio.sleep(20 * 60)
        assert keys_of(w) == {await root_key(w): "Active"}


@virtual
async def test_a_refused_create_access_key_changes_nothing() -> None:
    async with rotating() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateAccessKey"))
        with pytest.raises(LessorError) as raised:
            await rotate(w)
        assert raised.value.reason == "ROOT_REFUSED"
        row = await row_of(w)
        assert (row.phase, row.last_check_us, row.due_us) == (Phase.IDLE, 0, 0)
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
