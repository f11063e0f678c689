"""Checks that a request id gives one lease, however often it is sent."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.errors.base import (
    DeadlineExceeded,
    ErrorKind,
    LessorError,
    RequestIdReused,
    StoreUnavailable,
)
from lessor_server.domain.errors.preconditions import RequestSpent
from lessor_server.domain.events import Issued
from lessor_server.domain.lease import State
from lessor_server.engine.issuing.request import Credentials
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, bound, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as FaultKind
from tests.support.iam_user import User
from tests.support.virtual_loop import run, virtual

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def only_user(w: World) -> User:
    """Return the one user on the account."""
    (user,) = w.iam.users.values()
    return user


def opens(user: User, made: Credentials) -> bool:
    """Tell whether the credential's key is the one key of the user, with its secret."""
    key_id = made.lease.access_key_id
    return list(user.keys) == [key_id] and user.keys[key_id].secret == made.secret.reveal()


async def raises(w: World, request: str) -> LessorError:
    """Return the error that a repeat gets."""
    with pytest.raises(LessorError) as raised:
        await w.issue(ttl=600, request=request)
    return raised.value


@virtual
async def test_concurrent_callers_with_one_request_id_share_one_answer() -> None:
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(12):
                tasks.append(group.create_task(w.issue(request=ONE)))
                await asyncio.sleep(0.01)
        answers = [task.result() for task in tasks]
        assert all(answer == answers[0] for answer in answers)
        assert opens(only_user(w), answers[0])
        assert w.aws.actions().count("CreateUser") == w.aws.actions().count("CreateAccessKey") == 1


@virtual
async def test_a_repeat_gets_the_same_lease_with_a_new_key() -> None:
    async with world() as w:
        first = await w.issue(ttl=600, request=ONE)
        for _ in range(3):
            await asyncio.sleep(100)
            again = await w.issue(ttl=600, request=ONE)
            assert (again.lease.id, again.arn) == (first.lease.id, first.arn)
            assert again.lease.expires_us == first.lease.expires_us
            assert again.lease.access_key_id != first.lease.access_key_id
            assert opens(only_user(w), again)
        assert w.aws.actions().count("CreateUser") == 1
        await w.until_gone(seconds=310)
        assert w.users() == []


@virtual
async def test_concurrent_repeats_share_one_new_key() -> None:
    async with world() as w:
        await w.issue(request=ONE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(w.issue(request=ONE)) for _ in range(5)]
        assert len({task.result().lease.access_key_id for task in tasks}) == 1
        assert opens(only_user(w), tasks[0].result())
        assert w.aws.actions().count("CreateAccessKey") == 2


@virtual
async def test_a_repeat_does_not_change_a_renewed_expiry() -> None:
    async with world() as w:
        first = await w.issue(ttl=60, request=ONE)
        await asyncio.sleep(50)
        renewed = await w.renew(first.lease.id, 300)
        again = await w.issue(ttl=60, request=ONE)
        assert again.lease.expires_us == renewed.expires_us


@pytest.mark.parametrize("under_way", [True, False])
@virtual
async def test_one_id_for_two_different_requests_is_refused(under_way: bool) -> None:
    async with world() as w, asyncio.TaskGroup() as group:
        first = group.create_task(w.issue(ttl=60, request=ONE))
        await asyncio.sleep(0.02 if under_way else 1)
        assert first.done() is not under_way
        with pytest.raises(RequestIdReused) as raised:
            await w.issue(ttl=61, request=ONE)
        assert (raised.value.kind, raised.value.reason) == (ErrorKind.INVALID, "REQUEST_ID_REUSED")
        await first
        assert len(w.users()) == 1


@virtual
async def test_other_ids_roles_and_no_id_are_other_requests() -> None:
    async with world() as w:
        await w.put_role(builders.role("other"))
        made = [
            await w.issue(request=ONE),
            await w.issue(request=TWO),
            await w.issue(request=ONE, role="other"),
            await w.issue(),
            await w.issue(),
        ]
        assert len({one.lease.id for one in made}) == len(w.users()) == 5


@pytest.mark.parametrize("end", ["revoked", "expired", "half-made"])
@virtual
async def test_a_request_whose_lease_has_ended_is_spent(end: str) -> None:
    async with world() as w:
        if end == "half-made":
            w.aws.faults.add(Fault(FaultKind.REFUSE, "CreateAccessKey", nth=1))
            with pytest.raises(LessorError):
                await w.issue(ttl=60, request=ONE)
        else:
            made = await w.issue(ttl=60, request=ONE)
            if end == "revoked":
                await w.revoke(made.lease.id, sync=False)
            else:
                await asyncio.sleep(60)
        for _ in range(2):
            with pytest.raises(RequestSpent) as raised:
                await w.issue(ttl=60, request=ONE)
            assert raised.value.reason == "REQUEST_ID_SPENT"
            await w.until_gone()
        assert w.users() == []


@pytest.mark.parametrize("after", [0.01, 0.06, 0.11, 0.13])
@virtual
async def test_a_cancelled_request_leaves_its_lease_for_a_minute(after: float) -> None:
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(w.issue(request=ONE))
            await asyncio.sleep(after)
            caller.cancel()
        await w.events.until(Issued, seconds=5)
        issued = w.now()
        await asyncio.sleep(59)
        assert list(w.states().values()) == [State.ACTIVE]
        await w.until_gone(seconds=60)
        (cut,) = [one for one in w.aws.sent if one.action == "DeleteAccessKey"]
        assert issued + 60 <= cut.start <= issued + 60 + BOUND_SECONDS
        assert w.users() == []


@virtual
async def test_a_repeat_takes_the_lease_of_a_cancelled_request() -> None:
    """With its whole ttl from the issue."""
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(w.issue(ttl=600, request=ONE))
            await asyncio.sleep(0.06)
            caller.cancel()
        await w.events.until(Issued)
        await asyncio.sleep(50)
        made = await w.issue(ttl=600, request=ONE)
        assert made.lease.expires_us == made.lease.issue_us + 600_000_000
        assert opens(only_user(w), made)
        await asyncio.sleep(500)
        assert w.states()[made.lease.id] is State.ACTIVE
        await w.until_gone(seconds=100)


@virtual
async def test_a_repeat_during_the_commit_gets_the_whole_ttl() -> None:
    async with world() as w:
        await bound(w)
        w.points.slow["activate done"] = 0.5
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(w.issue(ttl=600, request=ONE))
            await w.until(lambda: "CreateUser done" in w.points.passed)
            caller.cancel()
            await w.until(lambda: "activate done" in w.points.passed)
            repeat = group.create_task(w.issue(ttl=600, request=ONE))
        made = repeat.result()
        assert made.lease.expires_us == made.lease.issue_us + 600_000_000
        assert opens(only_user(w), made)
        await asyncio.sleep(590)
        assert w.states()[made.lease.id] is State.ACTIVE


@virtual
async def test_a_commit_without_an_answer_leaves_the_lease_for_a_minute() -> None:
    """The caller got an error, but the lease is ACTIVE."""
    for repeats in (False, True):
        async with world() as w:
            await bound(w)
            w.points.lost.add("activate done")
            assert isinstance(await raises(w, ONE), StoreUnavailable)
            await asyncio.sleep(5)
            if repeats:
                made = await w.issue(ttl=600, request=ONE)
                await asyncio.sleep(590)
                assert opens(only_user(w), made)
            else:
                await asyncio.sleep(60 + BOUND_SECONDS)
                assert w.users() == []


@virtual
async def test_a_deadline_that_passes_leaves_the_lease_for_a_repeat() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(FaultKind.DELAY, "CreateUser", nth=1, seconds=4.0))
        with pytest.raises(DeadlineExceeded):
            await w.issue(seconds=2.5, request=ONE)
        made = await w.issue(request=ONE)
        assert opens(only_user(w), made)
        assert len(w.store.rows) == 1


def test_an_undelivered_answer_leaves_the_lease_for_a_minute() -> None:
    async def went_away(seed: int) -> bool:
        async with world(seed=seed) as w:
            async with asyncio.TaskGroup() as group:
                caller = group.create_task(w.issue(request=ONE))
                await w.events.until(Issued)
                caller.cancel()
            await asyncio.sleep(60 + BOUND_SECONDS)
            assert w.users() == [] if caller.cancelled() else len(w.users()) == 1
            return caller.cancelled()

    assert sum(run(went_away(seed), seed) for seed in range(20)) > 0


def test_a_cancelled_caller_does_not_shorten_the_lease_of_another() -> None:
    async def stays(seed: int) -> None:
        async with world(seed=seed) as w:
            async with asyncio.TaskGroup() as group:
                goes = group.create_task(w.issue(request=ONE))
                stayed = group.create_task(w.issue(request=ONE))
                await asyncio.sleep(0.05)
                goes.cancel()
            await asyncio.sleep(300)
            assert opens(only_user(w), stayed.result())

    for seed in range(5):
        run(stays(seed), seed)
