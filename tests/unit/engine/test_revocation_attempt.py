"""Checks what a revocation sends: three calls for a plain user, a sweep where others hung things on it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from lessor_server.domain.errors.base import AwsUnavailable
from lessor_server.domain.events import RevocationFailed, Revoked
from lessor_server.domain.lease import State
from lessor_server.engine.leases import Outcome
from tests.support import builders
from tests.support.engine_world import world
from tests.support.iam import TOUCHES
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

EVERYTHING = sorted(TOUCHES.keys() - {"user"})


@virtual
async def test_a_plain_revocation_is_three_calls_and_the_first_cuts_access() -> None:
    """DeleteAccessKey goes out first and alone, then DeleteUserPolicy, then DeleteUser, and nothing else."""
    async with world() as w:
        made = await w.issue()
        w.aws.sent.clear()
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.aws.actions() == ["DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"]
        for before, after in pairwise(w.aws.sent):
            assert before.end is not None
            assert before.end <= after.start


@virtual
async def test_what_the_row_says_is_taken_off_at_once() -> None:
    """However many policies and groups there are, a revocation takes three round trips."""
    role = builders.role(policy_arns=builders.MANAGED, iam_groups=("staff", "readers"))
    async with world(role=role) as w:
        made = await w.issue()
        start = w.now()
        await w.revoke(made.lease.id)
        assert w.now() - start == pytest.approx(0.15, abs=1e-6)
        assert w.users() == []


@pytest.mark.parametrize("thing", EVERYTHING)
@virtual
async def test_what_somebody_hung_on_the_user_is_swept(thing: str) -> None:
    """A user that somebody gave one thing more is deleted all the same."""
    async with world() as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, [thing])
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_everything_at_once_is_swept() -> None:
    """A user on whom all kinds of things were hung is deleted in one attempt."""
    async with world(role=builders.role(policy_arns=(builders.READ_ONLY,), iam_groups=("staff",))) as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, EVERYTHING)
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []
        assert w.events.of(RevocationFailed) == []


@virtual
async def test_a_listing_that_the_root_may_not_make_stops_no_revocation() -> None:
    """Where the root may not list what is not there, the sweep still ends with the user gone."""
    async with world() as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, ["access_key"])
        for action in ("ListSSHPublicKeys", "ListSigningCertificates", "ListMFADevices"):
            w.aws.faults.add(Fault(Kind.REFUSE, action))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE


@virtual
async def test_power_is_taken_from_a_key_that_cannot_be_deleted() -> None:
    """A key that AWS will not delete loses the user's policies and groups, and its lease is not gone."""
    role = builders.role(policy_arns=(builders.READ_ONLY,), iam_groups=("staff",))
    async with world(role=role) as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey"))
        told = await w.revoke(made.lease.id)
        assert told.outcome is Outcome.ACCEPTED
        assert "DeleteAccessKey" in told.last_error
        user = w.iam.users[made.lease.footprint.user_name.casefold()]
        assert (user.inline, user.attached, user.groups) == ({}, [], [])
        w.aws.faults.clear()
        await w.until_gone()
        assert w.users() == []


@pytest.mark.parametrize("action", ["DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"])
@pytest.mark.parametrize(
    "kind",
    [Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.LOSE, Kind.DROP, Kind.HANG_AFTER, Kind.THROTTLE, Kind.GARBAGE],
    ids=lambda kind: kind.value,
)
@virtual
async def test_an_unclear_answer_counts_no_attempt_and_is_made_up_for(action: str, kind: Kind) -> None:
    """Whichever call gets no clear answer, the row counts no attempt, and the user is gone in the end."""
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(kind, action, nth=1))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        assert (await w.events.until(RevocationFailed)).attempts == 0
        await w.until_gone()
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_a_key_that_the_row_does_not_know_is_found_and_deleted() -> None:
    """A half-made user whose key nobody learnt loses that key first."""
    async with world() as w:
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey"))
        assert isinstance(await w.attempt(), AwsUnavailable)
        w.aws.faults.clear()
        w.aws.sent.clear()
        await w.events.until(Revoked)
        actions = w.aws.actions()
        assert (
            actions.index("ListAccessKeys") < actions.index("DeleteAccessKey") < actions.index("DeleteUser")
        )
        assert w.users() == []


@virtual
async def test_two_revocations_of_one_lease_are_one() -> None:
    """Callers who revoke the same lease at once all hear GONE, and the user is deleted once."""
    async with world() as w:
        made = await w.issue()
        w.aws.sent.clear()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(w.revoke(made.lease.id)) for _ in range(5)]
        assert {task.result().outcome for task in asked} <= {Outcome.GONE, Outcome.ALREADY_GONE}
        assert w.aws.actions().count("DeleteUser") == 1
        assert len(w.events.of(Revoked)) == 1


@pytest.mark.parametrize(
    "action", ["DeleteAccessKey", "DeleteUserPolicy", "DetachUserPolicy", "RemoveUserFromGroup"]
)
@virtual
async def test_a_name_of_a_damaged_row_that_is_none_for_aws_keeps_no_user_alive(action: str) -> None:
    """Where AWS takes what the row says for no name at all, what is on the user is listed and swept."""
    role = builders.role(policy_arns=builders.MANAGED, iam_groups=("staff",))
    async with world(role=role) as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, action, nth=1, status=400, code="ValidationError"))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_a_user_whose_own_name_is_none_for_aws_is_tried_again_and_reported() -> None:
    """Only what hangs on a user may be passed over: DeleteUser decides."""
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1, status=400, code="ValidationError"))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        assert (await w.events.until(RevocationFailed)).attempts == 1
        await w.until_gone()
