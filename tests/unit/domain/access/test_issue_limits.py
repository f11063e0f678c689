"""Checks the patterns of role ARNs in rules, and which roles they admit."""

from __future__ import annotations

import pytest

from lessor.v1 import creds_pb2
from lessor_server.domain.access.issue_limits import REQUEST_FIELDS, admits, role_arn_violations

ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    ("pattern", "arn", "admitted"),
    [
        ("arn:aws:iam::*:role/deploy-*", f"arn:aws:iam::{ACCOUNT}:role/deploy-web", True),
        ("arn:aws:iam::*:role/deploy-*", f"arn:aws:iam::{ACCOUNT}:role/deploy-", True),
        ("arn:aws:iam::*:role/deploy-*", f"arn:aws:iam::{ACCOUNT}:role/admin", False),
        ("arn:aws:iam::*:role/deploy-*", f"arn:aws:iam::{ACCOUNT}:role/deploy-/admin", False),
        ("arn:aws:iam::*:role/*", f"arn:aws:iam::{ACCOUNT}:role/team/x", False),
        ("arn:aws:iam::*:role/team/*", f"arn:aws:iam::{ACCOUNT}:role/team/x", True),
        ("arn:aws:iam::*:role/*/x", f"arn:aws:iam::{ACCOUNT}:role/team/x", True),
        (f"arn:aws:iam::{ACCOUNT}:role/a", "arn:aws:iam::123456789013:role/a", False),
        ("arn:aws:iam::1234*:role/a", f"arn:aws:iam::{ACCOUNT}:role/a", True),
        ("arn:aws:iam::*:role/a", f"arn:aws-cn:iam::{ACCOUNT}:role/a", False),
        ("arn:aws:iam::*:role/a", f"arn:aws:iam::{ACCOUNT}:role/A", False),
        ("arn:aws:iam::*:role/*", f"arn:aws:iam::{ACCOUNT}:user/a", False),
        ("arn:aws:iam::*:role/*", "", False),
        ("arn:aws:iam::*:role/*", "*", False),
    ],
)
def test_a_star_stands_for_any_characters_but_a_slash(pattern: str, arn: str, admitted: bool) -> None:
    assert role_arn_violations("", pattern) == []
    assert admits(pattern, arn) == admitted


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "arn:aws:iam::*:role/",
        "arn:aws:iam::*:user/a",
        "arn:aws:iam::*:*",
        "arn:aws:iam::12345:role/a",
        "arn:aws:iam:us-east-1:*:role/a",
        "arn:aws:sts::*:role/a",
        "arn:aws-mars:iam::*:role/a",
        "arn:*:iam::*:role/a",
        "arn:aws:iam::*:role//a",
        "arn:aws:iam::*:role/a?",
        "arn:aws:iam::*:role/a b",
        "arn:aws:iam::*:role/a\n",
        "arn:aws:iam::*:role/" + "a/" * 400,
    ],
)
def test_a_pattern_that_no_role_matches_or_that_is_ambiguous_is_a_violation(pattern: str) -> None:
    assert [one.field for one in role_arn_violations("here", pattern)] == ["here"]


def test_a_rule_can_name_each_field_of_a_request_except_those_of_the_role() -> None:
    fields = [field.name for field in creds_pb2.GenerateCredentialsRequest.DESCRIPTOR.fields]
    assert sorted(REQUEST_FIELDS) == sorted(set(fields) - {"mount", "role"})
