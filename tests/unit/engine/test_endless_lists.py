"""Checks that lists of AWS end, and that what was read of one account counts for no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, cast

import pytest

from lessor_server.domain.aws.iam_calls import ListAttachedGroupPolicies, ListGroupPolicies, Names
from lessor_server.domain.errors.base import AwsUnavailable
from lessor_server.domain.policy.policy_merge import GroupPolicies
from lessor_server.domain.role import CredentialType
from lessor_server.domain.root import Root
from lessor_server.engine.aws.pages import MAX_PAGES
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.issuing.group_policies import MAX_NAMES, Groups
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.virtual_loop import virtual

ROOT = Root("aws", 1, builders.ACCOUNT, builders.root_config())
NUMBERS = count()
MARKERS: dict[str, Callable[[], str]] = {"same": lambda: "again", "new": lambda: f"page-{next(NUMBERS)}"}


def without_end(w: World, marker: Callable[[], str]) -> None:
    """Let each page of a list be followed by another one."""
    send = w.aws.send

    async def send_endless(root: Root, call: Any) -> Any:
        if not hasattr(call, "marker"):
            return await send(root, call)
        return replace(await send(root, replace(call, marker="")), marker=marker())

    w.aws.send = send_endless  # type: ignore[method-assign]


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@virtual
async def test_a_list_of_users_without_end_is_no_listing(marker: Callable[[], str]) -> None:
    async with world() as w:
        await bound(w)
        without_end(w, marker)
        with pytest.raises(AwsUnavailable):
            _ = [one async for one in w.engine.reconciler.reconcile("aws", apply=True)]
        assert w.aws.actions().count("ListUsers") <= MAX_PAGES


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@virtual
async def test_a_list_of_policies_without_end_ends_the_issue(marker: Callable[[], str]) -> None:
    async with world() as w:
        document = json.dumps({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}})
        params = {"GroupName": "staff", "PolicyName": "read", "PolicyDocument": document}
        assert w.iam.handle("PutGroupPolicy", params).ok
        kind = CredentialType.FEDERATION_TOKEN
        role = builders.role("fed", credential_type=kind, policy_document="", iam_groups=("staff",))
        await w.put_role(role)
        without_end(w, marker)
        with pytest.raises(AwsUnavailable):
            await w.issue(role="fed")
        assert w.aws.actions().count("ListGroupPolicies") <= MAX_PAGES
        assert "GetGroupPolicy" not in w.aws.actions()


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@virtual
async def test_verdicts_without_end_end_the_check_of_a_root(marker: Callable[[], str]) -> None:
    async with world() as w:
        without_end(w, marker)
        await w.engine.root_checker.check_root("aws")
        assert w.aws.actions().count("SimulatePrincipalPolicy") <= 10 * MAX_PAGES


class Account:
    """Answers the calls about a group of one account, which has a policy of the account's name."""

    def __init__(self, root: Root, policies: int) -> None:
        """Have so many inline policies."""
        self._root = root
        self._policies = policies

    async def call(self, call: object) -> object:
        """List policies."""
        if isinstance(call, ListGroupPolicies):
            return Names(tuple(map(str, range(self._policies))), "")
        assert isinstance(call, ListAttachedGroupPolicies)
        return Names((self._root.account,), "")

    async def call_all(self, calls: tuple[object, ...]) -> list[object]:
        """Return each policy."""
        return ["{}"] * len(calls)


class Accounts:
    """Calls accounts for their roots."""

    def __init__(self, policies: int = 0) -> None:
        """Let groups have so many inline policies."""
        self._policies = policies

    def caller(self, root: Root) -> Account:
        """Return what answers for a root."""
        return Account(root, self._policies)


@virtual
async def test_a_group_of_another_account_is_not_that_of_a_mount_that_was_enabled_again() -> None:
    """The root of the new mount has the version of the old one's."""
    groups = Groups(cast("Roots", Accounts()))
    for account in ("aws:111111111111", "aws:222222222222"):
        found = await groups.policies(replace(ROOT, account=account), ("staff",))
        assert found == (GroupPolicies((), (account,)),)


@virtual
async def test_a_group_with_more_policies_than_aws_allows_is_not_read() -> None:
    groups = Groups(cast("Roots", Accounts(MAX_NAMES + 1)))
    with pytest.raises(AwsUnavailable):
        await groups.policies(ROOT, ("staff",))
