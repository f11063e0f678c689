"""Checks that the policies of a role, its groups and a request become one that says what all say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lessor_server.domain.errors.preconditions import RoleNotUsable, SessionTooLarge
from lessor_server.domain.policy import policy, session_policy

GET: dict[str, Any] = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}
PUT: dict[str, Any] = {"Effect": "Allow", "Action": ["s3:Put*"], "Resource": ["arn:aws:s3:::b/*"]}
ARN = "arn:aws:iam::123456789012:policy/p"


def document(*statements: Any, **members: Any) -> str:
    """Return a policy with these statements as IAM may give it: indented."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **members}, indent=2)


def merged(*documents: str) -> Any:
    """Return what ``documents`` say together, parsed."""
    return json.loads(session_policy.united(documents))


def test_one_policy_stays_what_it_is() -> None:
    """A policy alone is sent as it was written, in its canonical form."""
    assert session_policy.united((document(GET),)) == policy.canonical(json.loads(document(GET)))
    old = json.dumps({"Version": "2008-10-17", "Statement": GET})
    assert merged(old) == {"Version": "2008-10-17", "Statement": [GET]}


def test_two_policies_are_their_statements_together() -> None:
    """All statements of all policies stand in the one that is sent, under the version of today."""
    assert merged(document(GET), document(PUT)) == {
        "Version": "2012-10-17",
        "Statement": [{**GET, "Action": ["s3:Get*"], "Resource": ["*"]}, PUT],
    }


def test_a_lone_statement_and_a_lone_action_become_lists() -> None:
    """IAM takes an object for a list of one; in the merge it is one."""
    alone = json.dumps({"Version": "2012-10-17", "Statement": GET})
    first, second = merged(alone, document(PUT))["Statement"]
    assert first == {**GET, "Action": ["s3:Get*"], "Resource": ["*"]}
    assert second == PUT


@pytest.mark.parametrize("blank", ["", "  \n", document(), json.dumps({"Version": "2012-10-17"})])
def test_what_is_blank_adds_nothing(blank: str) -> None:
    """A blank document, or one without a statement, is passed over; where all are, there is no policy."""
    assert merged(blank, document(PUT)) == json.loads(document(PUT))
    assert session_policy.united((blank, blank)) == ""


def test_not_action_is_kept() -> None:
    """What a statement leaves out of its reach stays out of it."""
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
def test_what_is_no_policy_is_refused(malformed: str) -> None:
    """A group's document that is none is a fault to be mended, not one to be sent or passed over."""
    with pytest.raises(RoleNotUsable):
        session_policy.united((document(GET), malformed))


def test_statement_ids_stay_unique() -> None:
    """AWS refuses a policy with a Sid twice, so the later ones get a number; empty ones go."""
    sids = [{**PUT, "Sid": sid} for sid in ("Read", "Read2", "")]
    made = merged(document(*sids), document({**PUT, "Sid": "Read"}), document({**PUT, "Sid": "Read"}))
    assert [statement.get("Sid") for statement in made["Statement"]] == [
        "Read",
        "Read2",
        None,
        "Read3",
        "Read4",
    ]


def test_the_first_id_stands() -> None:
    """A policy has one Id: that of the first document which has one."""
    made = merged(document(GET), document(PUT, Id="b"), document(PUT, Id="c"))
    assert made["Id"] == "b"


def test_the_old_language_is_not_read_as_the_new() -> None:
    """In a document of 2008 ``${`` is no variable; in the merge it is written so that it still is none."""
    place = "arn:aws:s3:::b/${aws:username}"
    old = json.dumps({"Version": "2008-10-17", "Statement": [{**PUT, "Resource": [place]}]})
    first, second = merged(old, document({**PUT, "Resource": [place]}))["Statement"]
    assert first["Resource"] == ["arn:aws:s3:::b/${$}{aws:username}"]
    assert second["Resource"] == [place]


def test_what_is_too_large_together_is_refused_with_its_size() -> None:
    """Three policies that each fit may not fit together; the error says how large they are."""
    long = document({**PUT, "Resource": [f"arn:aws:s3:::{'b' * 900}"]})
    assert len(session_policy.united((long, long))) <= policy.LIMIT
    with pytest.raises(SessionTooLarge, match=r"have \d{4} characters together, and AWS accepts 2048"):
        session_policy.united((long, long, long))


def test_managed_policies_are_named_once_and_at_most_ten() -> None:
    """AWS takes ten managed policies for a session; one that comes twice counts once."""
    ten = [f"{ARN}{number}" for number in range(10)]
    assert session_policy.managed([*ten, *ten]) == tuple(ten)
    with pytest.raises(SessionTooLarge, match="11 managed policies, and AWS accepts 10"):
        session_policy.managed([*ten, ARN])


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
    """One Allow is enough to widen."""
    assert session_policy.only_denies({"Statement": statements}) is denies
