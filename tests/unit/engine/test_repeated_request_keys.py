"""Checks the keys of a repeated request: in the end one key is valid, and its caller has it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.access.acl import EVERYTHING
from lessor_server.domain.errors.base import ErrorKind, LessorError
from lessor_server.domain.errors.preconditions import RequestSpent
from lessor_server.domain.lease import Request
from lessor_server.engine.issuing.request import IssueRequest
from tests.support.engine_world import BOUND_SECONDS, bound, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as FaultKind
from tests.support.virtual_loop import virtual
from tests.unit.engine.test_request_ids import ONE, only_user, opens, raises
from tests.unit.engine.test_two_processes import another


@pytest.mark.parametrize(
    "kind",
    [FaultKind.LOSE, FaultKind.DROP, FaultKind.HANG_AFTER, FaultKind.ERROR_AFTER],
    ids=lambda k: k.value,
)
@virtual
async def test_a_repeat_creates_another_key_after_a_lost_answer(kind: FaultKind) -> None:
    async with world() as w:
        await w.issue(request=ONE)
        w.aws.faults.add(Fault(kind, "CreateAccessKey", nth=1))
        made = await w.issue(request=ONE)
        assert opens(only_user(w), made)
        await w.revoke(made.lease.id)
        assert w.users() == []


@virtual
async def test_a_refused_repeat_leaves_the_lease_unchanged() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, request=ONE)
        w.aws.faults.add(Fault(FaultKind.REFUSE, "CreateAccessKey"))
        with pytest.raises(LessorError):
            await w.issue(ttl=600, request=ONE)
        after = await w.lease(made.lease.id)
        assert replace(after, generation=made.lease.generation) == made.lease
        assert opens(only_user(w), made)


@pytest.mark.parametrize("at", ["CreateAccessKey done", "replace_key", "replace_key done"])
@virtual
async def test_a_revocation_during_a_repeat_wins(at: str) -> None:
    async with world() as w:
        made = await w.issue(request=ONE)
        w.points.passed.clear()
        again = asyncio.get_running_loop().create_task(w.issue(request=ONE))
        await w.until(lambda: at in w.points.passed)
        await w.revoke(made.lease.id)
        await asyncio.wait([again])
        answer = again.exception()
        aborted = isinstance(answer, LessorError) and answer.kind is ErrorKind.ABORTED
        assert aborted or (answer is None and "replace_key done" in w.points.passed)
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_request_that_a_dead_process_began_is_spent() -> None:
    async with world() as w:
        await bound(w)
        playing = asyncio.get_running_loop().create_task(w.issue(request=ONE))
        await asyncio.sleep(0.06)
        await w.kill()
        assert playing.cancelled()
        await w.start()
        with pytest.raises(RequestSpent):
            await w.issue(request=ONE)
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_renewal_during_a_repeat_keeps_the_old_key() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, request=ONE)
        w.aws.sent.clear()
        async with asyncio.TaskGroup() as group:
            again = group.create_task(raises(w, ONE))
            await w.until(lambda: "CreateAccessKey" in w.aws.actions())
            await w.renew(made.lease.id, 300)
        assert again.result().kind is ErrorKind.ABORTED
        assert opens(only_user(w), made)


@virtual
async def test_only_a_stray_key_is_deleted_to_make_room() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, request=ONE)
        w.iam.touch(only_user(w).name, ["access_key"])
        w.aws.faults.add(Fault(FaultKind.REFUSE, "CreateAccessKey", nth=2))
        await raises(w, ONE)
        assert opens(only_user(w), made)


@virtual
async def test_an_undelivered_lease_lives_at_most_a_minute_after_a_death() -> None:
    """The commit that activates it also sets the short expiry."""
    async with world() as w:
        await bound(w)
        w.points.slow["activate done"] = 10.0
        caller = asyncio.get_running_loop().create_task(w.issue(ttl=600, request=ONE))
        await w.until(lambda: "CreateUser done" in w.points.passed)
        caller.cancel()
        await w.until(lambda: "activate done" in w.points.passed)
        await w.kill()
        await w.start()
        await w.until_gone(seconds=60 + BOUND_SECONDS)
        assert w.users() == []


@pytest.mark.parametrize("at", [None, "replace_key", "CreateAccessKey done"])
@virtual
async def test_a_cancelled_repeat_keeps_the_old_key(at: str | None) -> None:
    """Another process may have returned it."""
    async with world() as w, another(w) as other:
        asked = IssueRequest("aws", "app", "alice", None, EVERYTHING, Request(ONE, "app for None"))
        made = await other.issuer.generate(asked, 60)
        w.points.passed.clear()
        task = asyncio.get_running_loop().create_task(w.issue(request=ONE))
        await (w.until(lambda: at in w.points.passed) if at else asyncio.sleep(0))
        task.cancel()
        await asyncio.sleep(BOUND_SECONDS)
        assert opens(only_user(w), made)
        after = await w.lease(made.lease.id)
        assert (after.access_key_id, after.undelivered) == (made.lease.access_key_id, False)
        assert after.expires_us == made.lease.expires_us


@virtual
async def test_a_lease_ends_in_time_while_a_cancelled_repeat_still_runs() -> None:
    async with world() as w:
        async with another(w) as other:
            asked = IssueRequest(
                "aws", "app", "alice", timedelta(seconds=40), EVERYTHING, Request(ONE, "app for 40")
            )
            made = await other.issuer.generate(asked, 60)
            w.points.passed.clear()
            task = asyncio.get_running_loop().create_task(w.issue(ttl=40, request=ONE))
            await w.until(lambda: "CreateAccessKey sent" in w.points.passed)
            task.cancel()
            await asyncio.sleep(BOUND_SECONDS)
        assert opens(only_user(w), made)
        await w.until_gone(seconds=40)
        assert w.now() <= 40 + 2 * BOUND_SECONDS


@virtual
async def test_a_repeat_sets_the_timer_before_it_deletes_the_old_key() -> None:
    """AWS may not answer the deletion."""
    async with world() as w:
        caller = asyncio.get_running_loop().create_task(w.issue(ttl=63, request=ONE))
        await w.until(lambda: "CreateUser done" in w.points.passed)
        caller.cancel()
        await w.until(lambda: "activate done" in w.points.passed)
        began = w.now()
        await asyncio.sleep(59)
        w.aws.faults.add(Fault(FaultKind.HANG, "DeleteAccessKey", nth=1))
        repeat = asyncio.get_running_loop().create_task(w.issue(ttl=63, request=ONE))
        await w.until(lambda: not w.users())
        assert 63 <= w.now() - began <= 63 + BOUND_SECONDS
        await asyncio.wait([repeat])
