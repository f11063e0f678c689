"""Checks how the policies of IAM groups get into a session, and how long they are cached."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.preconditions import NoSessionPolicy, RoleNotUsable
from lessor_server.domain.role import CredentialType
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

READ = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}}
WRITE = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}}
LOOKS = ("ListGroupPolicies", "ListAttachedGroupPolicies", "GetGroupPolicy")


def call(w: World, action: str, **params: str) -> None:
    """Carry out one call of the account's administrator."""
    answer = w.iam.handle(action, params)
    assert answer.ok, answer


def give(w: World, group: str, name: str, document: object) -> None:
    """Write an inline policy of a group."""
    call(w, "PutGroupPolicy", GroupName=group, PolicyName=name, PolicyDocument=json.dumps(document))


async def federated(w: World, *groups: str, **changes: Any) -> None:
    """Write a role that federates with the policies of groups."""
    kind = CredentialType.FEDERATION_TOKEN
    role = builders.role("fed", credential_type=kind, policy_document="", iam_groups=groups)
    await w.put_role(replace(role, **changes))


def looks(w: World) -> int:
    """Count the calls that looked at groups."""
    return sum(action in LOOKS for action in w.aws.actions())


async def sent(w: World) -> tuple[list[object], tuple[str, ...]]:
    """Issue a session; return the actions of its policy's statements and its managed policies."""
    made = await w.issue(role="fed")
    key = w.iam.sts.sessions[made.lease.access_key_id]
    statements = json.loads(key.policy)["Statement"] if key.policy else []
    listed = statements if isinstance(statements, list) else [statements]
    return [one.get("Action", one.get("NotAction")) for one in listed], key.policy_arns


@virtual
async def test_inline_and_managed_policies_of_all_groups_are_sent() -> None:
    async with world() as w:
        give(w, "staff", "read", READ)
        give(w, "readers", "write", WRITE)
        for group in ("staff", "readers"):
            call(w, "AttachGroupPolicy", GroupName=group, PolicyArn=builders.READ_ONLY)
        await federated(w, "staff", "readers")
        assert await sent(w) == ([["s3:Get*"], ["iam:*"]], (builders.READ_ONLY,))


@pytest.mark.parametrize("only", ["inline", "managed"])
@virtual
async def test_a_group_may_have_one_kind_of_policy_alone(only: str) -> None:
    async with world() as w:
        if only == "inline":
            give(w, "staff", "read", READ)
        else:
            call(w, "AttachGroupPolicy", GroupName="staff", PolicyArn=builders.READ_ONLY)
        await federated(w, "staff")
        wanted = (["s3:Get*"], ()) if only == "inline" else ([], (builders.READ_ONLY,))
        assert await sent(w) == wanted


@virtual
async def test_groups_without_a_policy_are_refused_for_a_federated_session() -> None:
    async with world() as w:
        await federated(w, "staff", "readers")
        with pytest.raises(NoSessionPolicy):
            await w.issue(role="fed")
        assert "GetFederationToken" not in w.aws.actions()
        assert w.states() == {}


@virtual
async def test_a_role_without_groups_sends_no_call_to_iam() -> None:
    async with world() as w:
        await federated(w, policy_document=builders.DOCUMENT)
        await w.issue(role="fed")
        assert looks(w) == 0


@virtual
async def test_a_missing_group_is_named_and_leaves_no_row() -> None:
    async with world() as w:
        await federated(w, "nowhere")
        with pytest.raises(RoleNotUsable, match="nowhere"):
            await w.issue(role="fed")
        assert w.states() == {}


@virtual
async def test_policies_are_read_page_by_page() -> None:
    async with world() as w:
        page = w.iam.handle

        def short(action: str, params: object, *who: str) -> object:
            listing = action.startswith("List") and "Group" in action
            return page(action, {**params, "MaxItems": 2} if listing else params, *who)  # type: ignore[dict-item]

        w.iam.handle = short  # type: ignore[method-assign,assignment]
        for number in range(5):
            give(w, "staff", f"p{number}", READ)
            call(
                w,
                "AttachGroupPolicy",
                GroupName="staff",
                PolicyArn=f"arn:aws:iam::aws:policy/Policy{number}",
            )
        await federated(w, "staff")
        actions, arns = await sent(w)
        assert (len(actions), len(arns)) == (5, 5)


@virtual
async def test_a_group_is_read_once_a_minute() -> None:
    """A change counts for sessions that are issued a minute later."""
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        for _ in range(5):
            await sent(w)
            await asyncio.sleep(5)
        first = looks(w)
        give(w, "staff", "write", WRITE)
        assert (await sent(w))[0] == ["s3:Get*"]
        await asyncio.sleep(40)
        assert len((await sent(w))[0]) == 2
        assert looks(w) == 2 * first + 1


@virtual
async def test_concurrent_sessions_share_one_read_of_a_group() -> None:
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        await w.issue()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(w.issue(role="fed"))
        assert looks(w) == len(LOOKS)


@virtual
async def test_another_root_reads_its_own_groups() -> None:
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        await sent(w)
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        with pytest.raises(RoleNotUsable):
            await w.issue(role="fed")


@pytest.mark.parametrize("action", LOOKS)
@virtual
async def test_a_failed_read_of_a_group_is_not_cached(action: str) -> None:
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        w.aws.faults.add(Fault(Kind.LOSE, action, nth=1))
        with pytest.raises(LessorError) as raised:
            await w.issue(role="fed")
        assert raised.value.reason == "AWS_UNAVAILABLE"
        assert (await sent(w))[0] == ["s3:Get*"]
