"""Checks how the policies of IAM groups reach a session: all pages of them, and not for each session anew."""

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
    """What each of the groups may do stands in the session's policy, or among its managed ones."""
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
    """Without inline policies only ARNs are sent, without managed ones only a document."""
    async with world() as w:
        if only == "inline":
            give(w, "staff", "read", READ)
        else:
            call(w, "AttachGroupPolicy", GroupName="staff", PolicyArn=builders.READ_ONLY)
        await federated(w, "staff")
        wanted = (["s3:Get*"], ()) if only == "inline" else ([], (builders.READ_ONLY,))
        assert await sent(w) == wanted


@virtual
async def test_groups_without_a_policy_make_no_federated_session() -> None:
    """A session that could do nothing is refused before anything is stored or STS asked."""
    async with world() as w:
        await federated(w, "staff", "readers")
        with pytest.raises(NoSessionPolicy):
            await w.issue(role="fed")
        assert "GetFederationToken" not in w.aws.actions()
        assert w.states() == {}


@virtual
async def test_a_role_without_groups_asks_for_none() -> None:
    """No call to IAM is made for a role that names no group."""
    async with world() as w:
        await federated(w, policy_document=builders.DOCUMENT)
        await w.issue(role="fed")
        assert looks(w) == 0


@virtual
async def test_a_group_that_does_not_exist_is_told_by_name() -> None:
    """AWS's NoSuchEntity becomes an error that names the group, and leaves no row."""
    async with world() as w:
        await federated(w, "nowhere")
        with pytest.raises(RoleNotUsable, match="nowhere"):
            await w.issue(role="fed")
        assert w.states() == {}


@virtual
async def test_policies_are_read_page_by_page() -> None:
    """A group with more than one page of managed policies has all of them sent, or refused as too many."""
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
    """A busy role costs no looks for each session; a change counts for sessions made a minute later."""
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
async def test_who_asks_meanwhile_shares_one_reading() -> None:
    """Twenty sessions at once read their group once."""
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
    """What was read with one root says nothing about another's account."""
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        await sent(w)
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        with pytest.raises(RoleNotUsable):
            await w.issue(role="fed")


@pytest.mark.parametrize("action", LOOKS)
@virtual
async def test_a_failed_reading_is_told_and_forgotten(action: str) -> None:
    """Who asks gets the error; the next one reads again."""
    async with world() as w:
        give(w, "staff", "read", READ)
        await federated(w, "staff")
        w.aws.faults.add(Fault(Kind.LOSE, action, nth=1))
        with pytest.raises(LessorError) as raised:
            await w.issue(role="fed")
        assert raised.value.reason == "AWS_UNAVAILABLE"
        assert (await sent(w))[0] == ["s3:Get*"]
