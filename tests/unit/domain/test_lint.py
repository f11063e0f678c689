"""Checks the findings of the linter, with a short list of actions."""

from __future__ import annotations

from typing import Any

import pytest

from lessor_server.domain.policy.lint import MAX_FINDINGS, Action, Catalogue, findings

CATALOGUE = Catalogue(
    [
        Action("s3:GetObject", changes=False, narrows=True),
        Action("s3:PutObject", changes=True, narrows=True),
        Action("s3:DeleteObject", changes=True, narrows=True),
        Action("s3:DeleteBucket", changes=True, narrows=True),
        Action("s3:PutBucketPolicy", changes=True, narrows=True),
        Action("s3:CreateJob", changes=True, narrows=False),
        Action("iam:CreateUser", changes=True, narrows=True),
        Action("iam-rolesanywhere:CreateProfile", changes=True, narrows=True),
        Action("ec2:DescribeRegions", changes=False, narrows=False),
    ]
)
ARN = "arn:aws:s3:::bucket/*"


def findings_of(*statements: dict[str, Any]) -> list[str]:
    """Return the findings of a policy of these statements."""
    filled = [{"Effect": "Allow", "Resource": ARN, **one} for one in statements]
    return findings({"Version": "2012-10-17", "Statement": filled}, CATALOGUE)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("s3:GetObjet", '"s3:GetObjet" is not an action; did you mean s3:GetObject?'),
        ("s3:getobjects", '"s3:getobjects" is not an action; did you mean s3:GetObject?'),
        ("s3:Frobnicate", '"s3:Frobnicate" is not an action'),
        ("ec22:GetObject", '"ec22" is not a service; did you mean ec2?'),
        ("nowhere:Get*", '"nowhere" is not a service'),
        ("s3:Git*", '"s3:Git*" matches no action'),
        ("s3:GetObjec?s", '"s3:GetObjec?s" matches no action'),
    ],
)
def test_an_unknown_action_is_reported_with_the_nearest_name(action: str, said: str) -> None:
    assert findings_of({"Action": action}) == [f"policy_document.Statement[0].Action: {said}"]
    assert findings_of({"Action": ["s3:GetObject", action], "Effect": "Deny"}) == [
        f"policy_document.Statement[0].Action: {said}"
    ]
    assert findings_of({"NotAction": action, "Effect": "Deny"}) == [
        f"policy_document.Statement[0].NotAction: {said}"
    ]


@pytest.mark.parametrize(
    "action",
    ["s3:GetObject", "S3:GETOBJECT", "s3:*", "s3:Get*", "s3:G?tObject", "*", "*:*", "s*:GetObject"],
)
def test_a_known_action_has_no_finding(action: str) -> None:
    """In any case, and by a wildcard."""
    assert findings_of({"Action": action}) == []


def test_writes_on_every_resource_are_reported_in_one_sentence() -> None:
    (said,) = findings_of({"Action": ["s3:*", "ec2:DescribeRegions"], "Resource": "*"})
    assert said == (
        "policy_document.Statement[0] allows s3:DeleteBucket, s3:DeleteObject, s3:PutBucketPolicy and 1 more "
        "on every resource; name the intended resources in Resource"
    )
    (said,) = findings_of({"Action": "s3:putobject", "Resource": [ARN, "*"]})
    assert "allows s3:PutObject on every resource" in said


@pytest.mark.parametrize(
    "statement",
    [
        {"Action": "s3:*"},
        {"Action": "s3:GetObject", "Resource": "*"},
        {"Action": "s3:CreateJob", "Resource": "*"},
        {"Action": "s3:*", "Resource": "*", "Effect": "Deny"},
        {"Action": "s3:*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Action": "iam:CreateUser", "Resource": "*"},
        {"NotAction": "s3:*", "Resource": "*"},
    ],
)
def test_a_narrow_statement_has_no_finding(statement: dict[str, Any]) -> None:
    assert findings_of(statement) == []


def test_a_service_whose_name_begins_like_iam_s_is_not_taken_for_it() -> None:
    """Only IAM and STS are left to the other warnings."""
    assert len(findings_of({"Action": "iam-rolesanywhere:CreateProfile", "Resource": "*"})) == 1


def test_a_single_statement_outside_a_list_is_checked() -> None:
    statement = {"Effect": "Allow", "Action": "s3:Gett", "Resource": ARN}
    assert len(findings({"Statement": statement}, CATALOGUE)) == 1


def test_at_most_ten_findings_are_reported() -> None:
    said = findings_of(*({"Action": f"s3:Nothing{number}"} for number in range(MAX_FINDINGS + 5)))
    assert len(said) == MAX_FINDINGS
    assert said[-1] == "and 6 more findings in policy_document"
