"""Checks the least policy against the calls that are really made."""

from __future__ import annotations

import json

from lessor_server.adapters.aws.requests import REQUESTS
from lessor_server.domain import least_policy, policy
from lessor_server.domain.calls import AskTime, GetCallerIdentity, ProveKey

DOCUMENT = least_policy.document("aws-cn:123456789012", "0123456789abcdef")


def statements() -> dict[str, tuple[set[str], str]]:
    """Return each statement's actions and resource by its Sid."""
    listed = json.loads(json.dumps(DOCUMENT))["Statement"]
    return {one["Sid"]: (set(one["Action"]), one["Resource"]) for one in listed}


def test_every_call_that_is_sent_is_allowed() -> None:
    """No call exists whose action the policy leaves out."""
    asks_sts = (GetCallerIdentity, AskTime, ProveKey)
    assert {REQUESTS[kind].method for kind in asks_sts} == {"get_caller_identity"}
    needed = {f"iam:{kind.__name__}" for kind in REQUESTS if kind not in asks_sts}
    granted = {action for actions, _ in statements().values() for action in actions}
    assert needed <= granted
    assert needed | {"sts:GetCallerIdentity"} <= set(least_policy.ACTIONS)


def test_users_are_touched_below_the_instance_s_path_only() -> None:
    """What changes users is allowed on this installation's path, in the account's own partition."""
    actions, resource = statements()["LessorUsers"]
    assert resource == "arn:aws-cn:iam::123456789012:user/lessor/0123456789abcdef/*"
    assert "iam:CreateUser" in actions
    everywhere, star = statements()["LessorReads"]
    assert star == "*"
    assert all(action.startswith(("iam:List", "iam:Get")) for action in everywhere)


def test_the_policy_is_one_that_aws_takes() -> None:
    """It keeps the rules that Lessor holds its roles' policies to."""
    assert policy.violations(DOCUMENT) == []
    assert len(policy.canonical(DOCUMENT)) < 6144
