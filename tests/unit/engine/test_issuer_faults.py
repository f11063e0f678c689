"""Checks issues that fail at AWS: the error for the caller, and that nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.errors.base import AwsQuota, AwsUnavailable, LessorError
from lessor_server.domain.errors.preconditions import RoleNotUsable, RootRefused
from lessor_server.domain.events import IssueFailed
from lessor_server.domain.lease import State
from lessor_server.engine.aws.caller import TRIES
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

RICH = builders.role(
    policy_arns=builders.MANAGED, iam_groups=("staff", "readers"), iam_tags=(("team", "storage"),)
)
MAKING = ("CreateUser", "PutUserPolicy", "AttachUserPolicy", "AddUserToGroup", "CreateAccessKey")
MAX_OF_A_KIND = dict.fromkeys(MAKING, 1) | {"AttachUserPolicy": 3, "AddUserToGroup": 2}
LOSING = (Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.LOSE, Kind.DROP, Kind.HANG, Kind.HANG_AFTER, Kind.GARBAGE)


async def fails(w: World, fault: Fault) -> LessorError:
    """Issue with a fault on the way and return the error; everything must be gone in the end."""
    await bound(w)
    w.aws.faults.add(fault)
    with pytest.raises(LessorError) as raised:
        await w.issue()
    w.aws.faults.clear()
    await w.until_gone()
    assert w.users() == []
    return raised.value


@pytest.mark.parametrize("action", MAKING)
@pytest.mark.parametrize("kind", LOSING, ids=lambda kind: kind.value)
@virtual
async def test_a_call_without_a_clear_answer_is_sent_again(action: str, kind: Kind) -> None:
    """The caller gets one complete user with one key."""
    async with world(role=RICH) as w:
        await bound(w)
        w.aws.faults.add(Fault(kind, action, nth=1))
        made = await w.issue()
        (user,) = w.iam.users.values()
        assert list(user.keys) == [made.lease.access_key_id]
        assert user.keys[made.lease.access_key_id].secret == made.secret.reveal()
        assert list(user.inline) == ["lessor"]
        assert (len(user.attached), len(user.groups)) == (3, 2)
        assert made.arn == user.arn
        await w.revoke(made.lease.id)
        assert w.users() == []


@pytest.mark.parametrize("action", MAKING)
@pytest.mark.parametrize("kind", LOSING, ids=lambda kind: kind.value)
@virtual
async def test_a_call_that_never_gets_a_clear_answer_ends_the_issue_and_leaves_nothing(
    action: str, kind: Kind
) -> None:
    async with world(role=RICH) as w:
        error = await fails(w, Fault(kind, action))
        assert isinstance(error, AwsUnavailable)
        assert action in error.message
        assert error.message.endswith("credentials that AWS may have created reach nobody")
        assert error.aws is not None
        assert TRIES <= w.aws.actions().count(action) <= MAX_OF_A_KIND[action] * (TRIES + 1)


@pytest.mark.parametrize("action", MAKING)
@virtual
async def test_a_call_that_was_not_sent_is_not_repeated(action: str) -> None:
    async with world(role=RICH) as w:
        await bound(w)
        task = asyncio.get_running_loop().create_task(w.attempt())
        while action not in w.aws.actions():
            w.aws.away = action == "CreateUser" or "CreateUser" in w.aws.actions()
            await asyncio.sleep(0.001)
        assert isinstance(await task, AwsUnavailable)
        assert w.aws.actions().count(action) == MAX_OF_A_KIND[action]
        w.aws.away = False
        await w.until_gone()
        assert w.users() == []


@pytest.mark.parametrize("action", MAKING)
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", RootRefused),
        ("LimitExceeded", AwsQuota),
        ("MalformedPolicyDocument", RoleNotUsable),
        ("Throttling", AwsUnavailable),
        ("Unheard", AwsRefused),
    ],
)
@virtual
async def test_a_refused_call_is_the_error_of_who_can_fix_it(
    action: str, code: str, kind: type[LessorError]
) -> None:
    async with world(role=RICH) as w:
        error = await fails(w, Fault(Kind.REFUSE, action, nth=1, status=400, code=code))
        assert type(error) is kind
        assert error.aws is not None
        assert error.aws.code == code


@virtual
async def test_after_a_lost_answer_an_existing_user_is_ours() -> None:
    """EntityAlreadyExists then means the user that the first request created."""
    async with world() as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.LOSE, "CreateUser", nth=1))
        made = await w.issue()
        assert w.aws.actions()[:3] == ["CreateUser", "CreateUser", "GetUser"]
        assert [user.arn for user in w.iam.users.values()] == [made.arn]


@virtual
async def test_a_taken_name_that_is_not_visible_is_checked_for_15_minutes() -> None:
    """NoSuchEntity is not believed yet."""
    async with world(role=RICH) as w:
        await bound(w)
        taken = {"status": 409, "code": "EntityAlreadyExists", "message": "the name is taken"}
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateUser", **taken))
        with pytest.raises(LessorError):
            await w.issue()
        w.aws.faults.clear()
        await asyncio.sleep(14 * 60)
        assert State.REVOKING in w.states().values()
        await w.until_gone()


@pytest.mark.parametrize("losses", [1, 2])
@virtual
async def test_a_lost_access_key_is_deleted_before_another_is_created(losses: int) -> None:
    async with world() as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", nth=1, times=losses))
        most = 0
        task = asyncio.get_running_loop().create_task(w.issue())
        while not task.done():
            most = max([most, *(len(user.keys) for user in w.iam.users.values())])
            await asyncio.sleep(0.001)
        made = task.result()
        (user,) = w.iam.users.values()
        assert (most, list(user.keys)) == (1, [made.lease.access_key_id])


@virtual
async def test_a_user_that_is_visible_late_is_waited_for() -> None:
    async with world(role=RICH, visible_after=8.0) as w:
        made = await w.issue()
        assert 8.0 <= w.now() <= 12.0
        assert made.secret
        user = w.iam.users[w.users()[0].casefold()]
        assert len(user.keys) == 1
        assert len(user.attached) == 3


@virtual
async def test_a_user_that_is_never_visible_fails_the_issue_after_30_seconds() -> None:
    async with world(visible_after=300.0) as w:
        with pytest.raises(AwsUnavailable):
            await w.issue()
        assert 20.0 <= w.now() <= 40.0
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_missing_policy_is_not_waited_for() -> None:
    missing = "arn:aws:iam::123456789012:policy/not-there"
    async with world(role=builders.role(policy_arns=(missing,))) as w:
        await w.put_role(builders.role("lost", iam_groups=("nowhere",)))
        start = w.now()
        with pytest.raises(RoleNotUsable):
            await w.issue()
        with pytest.raises(RoleNotUsable):
            await w.issue(role="lost")
        assert w.now() - start < 1.0
        assert w.aws.actions().count("AttachUserPolicy") == 1
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_a_concurrent_modification_is_repeated() -> None:
    async with world(role=RICH) as w:
        await bound(w)
        code = "ConcurrentModification"
        w.aws.faults.add(Fault(Kind.REFUSE, "AttachUserPolicy", nth=1, times=4, status=409, code=code))
        await w.issue()
        assert w.aws.actions().count("AttachUserPolicy") == 7
        assert len(w.iam.users[w.users()[0].casefold()].attached) == 3


@virtual
async def test_each_failed_issue_is_one_event() -> None:
    """It has the cause and the error of AWS."""
    async with world() as w:
        await fails(w, Fault(Kind.REFUSE, "CreateAccessKey", nth=1, code="AccessDenied", message="not you"))
        (event,) = w.events.of(IssueFailed)
        assert "AccessDenied" in event.error
        assert event.detail == "not you"


@virtual
async def test_an_issue_whose_claim_ended_does_not_repeat_create_user() -> None:
    """The machine may have been suspended. The row is the revocation worker's now."""
    async with world(role=RICH) as w:
        await bound(w)
        w.aws.faults.add(Fault(Kind.HANG, "CreateUser", nth=1))
        caller = asyncio.get_running_loop().create_task(w.attempt())
        await w.until(lambda: "CreateUser" in w.aws.actions())
        w.clocks.asleep = 200.0
        assert isinstance(await caller, LessorError)
        assert w.aws.actions().count("CreateUser") == 1
        await w.until_gone()
        assert w.users() == []
