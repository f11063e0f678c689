"""Checks which calls a revocation sends."""

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
async def test_a_plain_revocation_is_three_calls_and_deletes_the_key_first() -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.sent.clear()
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.aws.actions() == ["DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"]
        for before, after in pairwise(w.aws.sent):
            assert before.end is not None
            assert before.end <= after.start


@virtual
async def test_any_number_of_attachments_takes_three_rounds() -> None:
    role = builders.role(policy_arns=builders.MANAGED, iam_groups=("staff", "readers"))
    async with world(role=role) as w:
        made = await w.issue()
        start = w.now()
        await w.revoke(made.lease.id)
        assert w.now() - start == pytest.approx(0.15, abs=1e-6)
        assert w.users() == []


@pytest.mark.parametrize("thing", EVERYTHING)
@virtual
async def test_what_others_attached_to_the_user_is_removed(thing: str) -> None:
    async with world() as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, [thing])
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_all_kinds_of_attachments_are_removed_in_one_attempt() -> None:
    async with world(role=builders.role(policy_arns=(builders.READ_ONLY,), iam_groups=("staff",))) as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, EVERYTHING)
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []
        assert w.events.of(RevocationFailed) == []


@virtual
async def test_a_denied_listing_does_not_stop_a_revocation() -> None:
    async with world() as w:
        made = await w.issue()
        w.iam.touch(made.lease.footprint.user_name, ["access_key"])
        for action in ("ListSSHPublicKeys", "ListSigningCertificates", "ListMFADevices"):
            w.aws.faults.add(Fault(Kind.REFUSE, action))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE


@virtual
async def test_a_key_that_cannot_be_deleted_loses_its_policies_and_groups() -> None:
    role = builders.role(policy_arns=(builders.READ_ONLY,), iam_groups=("staff",))
    async with world(role=role) as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteAccessKey"))
        answer = await w.revoke(made.lease.id)
        assert answer.outcome is Outcome.ACCEPTED
        assert "DeleteAccessKey" in answer.last_error
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
async def test_an_unclear_answer_is_retried_and_counts_no_attempt(action: str, kind: Kind) -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(kind, action, nth=1))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        assert (await w.events.until(RevocationFailed)).attempts == 0
        await w.until_gone()
        assert (w.users(), w.states()[made.lease.id]) == ([], State.GONE)


@virtual
async def test_an_unknown_key_is_found_and_deleted_first() -> None:
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
async def test_concurrent_revocations_of_one_lease_are_one() -> None:
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
async def test_an_invalid_policy_name_in_a_damaged_row_does_not_stop_a_revocation(action: str) -> None:
    role = builders.role(policy_arns=builders.MANAGED, iam_groups=("staff",))
    async with world(role=role) as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, action, nth=1, status=400, code="ValidationError"))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert w.users() == []


@virtual
async def test_an_invalid_user_name_in_a_damaged_row_is_retried_and_reported() -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser", nth=1, status=400, code="ValidationError"))
        assert (await w.revoke(made.lease.id)).outcome is Outcome.ACCEPTED
        assert (await w.events.until(RevocationFailed)).attempts == 1
        await w.until_gone()
