"""Checks how the policies of a role, its groups and a request become one session policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lessor_server.domain.errors.preconditions import RoleNotUsable, SessionTooLarge
from lessor_server.domain.policy import policy, policy_merge

GET: dict[str, Any] = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}
PUT: dict[str, Any] = {"Effect": "Allow", "Action": ["s3:Put*"], "Resource": ["arn:aws:s3:::b/*"]}
ARN = "arn:aws:iam::123456789012:policy/p"


def document(*statements: Any, **members: Any) -> str:
    """Return a policy with these statements as IAM may give it: indented."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **members}, indent=2)


def merged(*documents: str) -> Any:
    """Return what ``documents`` say together, parsed."""
    return json.loads(policy_merge.united(documents))


def test_a_single_policy_is_unchanged() -> None:
    assert policy_merge.united((document(GET),)) == policy.canonical(json.loads(document(GET)))
    old = json.dumps({"Version": "2008-10-17", "Statement": GET})
    assert merged(old) == {"Version": "2008-10-17", "Statement": [GET]}


def test_several_policies_become_one_with_all_statements() -> None:
    assert merged(document(GET), document(PUT)) == {
        "Version": "2012-10-17",
        "Statement": [{**GET, "Action": ["s3:Get*"], "Resource": ["*"]}, PUT],
    }


def test_a_single_statement_and_a_single_action_become_lists() -> None:
    alone = json.dumps({"Version": "2012-10-17", "Statement": GET})
    first, second = merged(alone, document(PUT))["Statement"]
    assert first == {**GET, "Action": ["s3:Get*"], "Resource": ["*"]}
    assert second == PUT


@pytest.mark.parametrize("blank", ["", "  \n", document(), json.dumps({"Version": "2012-10-17"})])
def test_a_blank_document_is_skipped(blank: str) -> None:
    assert merged(blank, document(PUT)) == json.loads(document(PUT))
    assert policy_merge.united((blank, blank)) == ""


def test_not_action_is_kept() -> None:
    most: dict[str, Any] = {"Effect": "Allow", "NotAction": ["iam:*"], "NotResource": ["arn:aws:s3:::b/*"]}
    assert merged(document(most), document(PUT))["Statement"] == [most, PUT]


@pytest.mark.parametrize(
    "malformed",
    [
        "{",
        "[]",
        '"text"',
        json.dumps({"Version": "2012-10-17", "Statement": "s3:*"}),
        json.dumps({"Version": "2012-10-17", "Statement": [GET, "s3:*"]}),
    ],
)
def test_an_invalid_group_policy_is_refused(malformed: str) -> None:
    with pytest.raises(RoleNotUsable):
        policy_merge.united((document(GET), malformed))


def test_statement_ids_stay_unique() -> None:
    """AWS refuses a policy that has a Sid twice."""
    sids = [{**PUT, "Sid": sid} for sid in ("Read", "Read2", "")]
    made = merged(document(*sids), document({**PUT, "Sid": "Read"}), document({**PUT, "Sid": "Read"}))
    assert [statement.get("Sid") for statement in made["Statement"]] == [
        "Read",
        "Read2",
        None,
        "Read3",
        "Read4",
    ]


def test_the_first_id_is_kept() -> None:
    made = merged(document(GET), document(PUT, Id="b"), document(PUT, Id="c"))
    assert made["Id"] == "b"


def test_a_policy_of_2008_keeps_its_meaning() -> None:
    """In it ``${`` is not a variable, so the merge escapes it."""
    place = "arn:aws:s3:::b/${aws:username}"
    old = json.dumps({"Version": "2008-10-17", "Statement": [{**PUT, "Resource": [place]}]})
    first, second = merged(old, document({**PUT, "Resource": [place]}))["Statement"]
    assert first["Resource"] == ["arn:aws:s3:::b/${$}{aws:username}"]
    assert second["Resource"] == [place]


def test_what_is_too_large_together_is_refused_with_its_size() -> None:
    long = document({**PUT, "Resource": [f"arn:aws:s3:::{'b' * 900}"]})
    assert len(policy_merge.united((long, long))) <= policy.LIMIT
    with pytest.raises(SessionTooLarge, match=r"have \d{4} characters together, and AWS accepts 2048"):
        policy_merge.united((long, long, long))


def test_managed_policies_are_named_once_and_at_most_ten() -> None:
    ten = [f"{ARN}{number}" for number in range(10)]
    assert policy_merge.managed([*ten, *ten]) == tuple(ten)
    with pytest.raises(SessionTooLarge, match="11 managed policies, and AWS accepts 10"):
        policy_merge.managed([*ten, ARN])


@pytest.mark.parametrize(
    ("statements", "denies"),
    [
        ([{**GET, "Effect": "Deny"}], True),
        ({**GET, "Effect": "Deny"}, True),
        ([{**GET, "Effect": "Deny"}, GET], False),
        (GET, False),
    ],
)
def test_a_policy_only_denies_where_each_statement_does(statements: Any, denies: bool) -> None:
    assert policy_merge.only_denies({"Statement": statements}) is denies
