"""Checks how often a call is sent, by the root's max_retries."""

from __future__ import annotations

import asyncio
import random

import pytest

from lessor_server.domain.aws import iam_calls
from lessor_server.domain.errors.base import AwsUnavailable, LessorError
from lessor_server.domain.root import Root
from lessor_server.engine.aws.caller import AwsCaller
from lessor_server.engine.aws.rate_limiter import Priority, RateLimit, RateLimiter
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam import Iam
from tests.support.iam_faults import Fault, Kind
from tests.support.memory_aws import MemoryAws
from tests.support.rotating import keys_of, rotate, rotating
from tests.support.virtual_loop import virtual

RICH = builders.role(policy_arns=(builders.READ_ONLY,), iam_groups=("staff",))
MAKING = ("CreateUser", "CreateAccessKey", "PutUserPolicy", "AttachUserPolicy", "AddUserToGroup")
PUT = iam_calls.PutUserPolicy("u", "p", builders.DOCUMENT)
CLASH = {"status": 409, "code": "ConcurrentModification"}


async def limited(w: World, retries: int | None) -> None:
    """Give the mount the same root, with this many retries."""
    config = builders.root_config(max_retries=retries)
    await w.engine.mounts.set_root("aws", "", lambda _: config, "test")


def rounds_of(aws: MemoryAws, retries: int | None) -> AwsCaller:
    """Return rounds for a root with this many retries."""
    root = Root("aws", 1, builders.ACCOUNT, builders.root_config(max_retries=retries))
    return AwsCaller(aws, root, RateLimiter("a", RateLimit()), random.Random(1), Priority.ISSUE)


@pytest.mark.parametrize("action", MAKING)
@virtual
async def test_with_0_no_call_of_an_issue_is_sent_twice(action: str) -> None:
    async with world(role=RICH) as w:
        await limited(w, 0)
        await bound(w)
        w.aws.faults.add(Fault(Kind.LOSE, action, nth=1))
        with pytest.raises(AwsUnavailable):
            await w.issue()
        made = [sent for sent in w.aws.actions() if sent in MAKING]
        assert len(made) == len(set(made))
        await w.until_gone()
        assert w.users() == []


@pytest.mark.parametrize(("retries", "sent"), [(1, 2), (4, 5), (None, 3)])
@virtual
async def test_a_call_with_an_unknown_outcome_is_sent_max_retries_more_times(
    retries: int | None, sent: int
) -> None:
    """The default is three times in all."""
    async with world() as w:
        await limited(w, retries)
        await bound(w)
        w.aws.faults.add(Fault(Kind.ERROR_BEFORE, "CreateUser"))
        with pytest.raises(AwsUnavailable):
            await w.issue()
        assert w.aws.actions().count("CreateUser") == sent


@pytest.mark.parametrize("retries", [0, 2])
@virtual
async def test_a_call_that_aws_asks_to_repeat_is_repeated_max_retries_times(retries: int) -> None:
    for faults, visible_after in (([Fault(Kind.REFUSE, "PutUserPolicy", **CLASH)], 0.0), ([], 60.0)):
        iam = Iam(now=asyncio.get_running_loop().time)
        iam.visible_after = visible_after
        iam.create_user("u")
        aws = MemoryAws({builders.ROOT_KEY: iam}, latency=0.05)
        for fault in faults:
            aws.faults.add(fault)
        assert isinstance(await rounds_of(aws, retries).call(PUT, lambda: True), LessorError)
        assert len(aws.sent) == retries + 1


@virtual
async def test_with_0_a_revocation_is_still_never_given_up() -> None:
    async with world() as w:
        await limited(w, 0)
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.ERROR_BEFORE, "DeleteAccessKey", nth=1, times=2))
        await w.revoke(made.lease.id, sync=False)
        await w.until_gone()
        assert w.users() == []


@virtual
async def test_with_0_a_repeated_request_still_deletes_a_stray_key() -> None:
    """A refusal for lack of room is not a failed try."""
    async with world() as w:
        await limited(w, 0)
        first = await w.issue(request="one")
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", nth=1))
        with pytest.raises(LessorError):
            await w.issue(request="one")
        again = await w.issue(request="one")
        assert again.lease.id == first.lease.id
        (user,) = w.iam.users.values()
        assert again.lease.access_key_id in user.keys


@virtual
async def test_with_0_a_rotation_sends_create_access_key_once_per_attempt() -> None:
    async with rotating() as w:
        await limited(w, 0)
        w.aws.sent.clear()
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", nth=1))
        with pytest.raises(AwsUnavailable):
            await rotate(w)
        assert w.aws.actions().count("CreateAccessKey") == 1
        new = await rotate(w)
        assert set(keys_of(w)) == {builders.ROOT_KEY, new}
