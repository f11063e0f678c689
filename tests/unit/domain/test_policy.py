"""Checks the canonical form, the grammar and the warnings of policy documents."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.policy import policy
from lessor_server.domain.policy.policy import JsonValue

Document = dict[str, JsonValue]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**53), max_value=2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["Version", "Id", "Statement", "x"]) | st.text(), VALUES, max_size=5
)
TEXTS = st.text(alphabet=st.characters(max_codepoint=0xFF, min_codepoint=0x20), max_size=10)
GOOD = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.lists(st.sampled_from(["*", "s3:Get*", "ec2:Run?nstances"]), min_size=1, max_size=3),
        "Resource": st.sampled_from(["*", "arn:aws:s3:::b/*", "arn:aws:iam::1:user/${aws:username}"]),
    },
    optional={
        "Condition": st.fixed_dictionaries(
            {"StringLikeIfExists": st.fixed_dictionaries({"aws:PrincipalTag/x": TEXTS | st.booleans()})}
        )
    },
)


def statement(**members: JsonValue) -> Document:
    """Return a document of one good statement with ``members`` put over it."""
    inner: Document = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **members}
    return {
        "Version": "2012-10-17",
        "Statement": [{key: value for key, value in inner.items() if value != "-"}],
    }


def fields(document: Document) -> list[str]:
    """Return the paths of all violations."""
    return [violation.field for violation in policy.violations(document)]


@given(DOCUMENTS)
def test_the_canonical_form_has_the_same_meaning_and_is_stable(document: Document) -> None:
    text = policy.canonical(document)
    parsed = json.loads(text)
    lone = document.get("Statement")
    assert parsed == (document | {"Statement": [lone]} if isinstance(lone, dict) else document)
    assert policy.canonical(parsed) == text
    assert policy.canonical(dict(reversed(document.items()))) == text


def test_the_canonical_form_is_sorted_compact_and_unescaped() -> None:
    document: Document = {"b": [1.0, True, 0.5], "a": {"é": -0.0, "c": 2.0**53, "d": 2.0**54}}
    expected = '{"a":{"c":9007199254740992,"d":1.8014398509481984e+16,"é":0},"b":[1,true,0.5]}'
    assert policy.canonical(document) == expected


def test_the_canonical_form_has_the_order_of_iams_grammar_page() -> None:
    document: Document = {
        "Statement": {
            "Condition": {"StringLike": {"aws:z": "1", "aws:a": ["2"]}, "Bool": {"aws:b": True}},
            "Resource": "*",
            "NotAction": "s3:*",
            "Effect": "Deny",
            "Sid": "One",
        },
        "Id": "x",
        "Version": "2012-10-17",
    }
    assert policy.canonical(document) == (
        '{"Version":"2012-10-17","Id":"x","Statement":[{"Sid":"One","Effect":"Deny","NotAction":"s3:*",'
        '"Resource":"*","Condition":{"Bool":{"aws:b":true},"StringLike":{"aws:a":["2"],"aws:z":"1"}}}]}'
    )


@given(st.lists(GOOD, min_size=1, max_size=4))
def test_a_policy_of_iams_grammar_is_valid(statements: list[JsonValue]) -> None:
    assert policy.violations({"Version": "2012-10-17", "Statement": statements}) == []
    assert policy.violations({"Version": "2008-10-17", "Id": "x", "Statement": statements[0]}) == []


@given(DOCUMENTS)
def test_any_json_document_is_checked_without_an_exception(document: Document) -> None:
    for violation in policy.violations(document):
        assert violation.field.startswith("policy_document")
        assert violation.problem
        assert violation.fix
    policy.warnings(document)


@pytest.mark.parametrize("version", ["2024-01-01", "2012-10-18", "", None, 1, ["2012-10-17"]])
def test_an_unknown_version_names_both_known_ones(version: JsonValue) -> None:
    (violation,) = policy.violations(statement() | {"Version": version})
    assert violation.field == "policy_document.Version"
    assert "2012-10-17" in violation.fix
    assert "2008-10-17" in violation.fix


def test_a_missing_version_is_allowed_and_warned_of() -> None:
    """IAM then takes the policy language of 2008."""
    document = statement()
    del document["Version"]
    assert policy.violations(document) == []
    assert "2008-10-17" in policy.warnings(document)[0]


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"Effect": "allow"}, "Effect"),
        ({"Effect": "-"}, "Effect"),
        ({"Sid": "a b"}, "Sid"),
        ({"Sid": 1}, "Sid"),
        ({"Action": "-"}, "Action"),
        ({"NotAction": "s3:*"}, "Action"),
        ({"Action": []}, "Action"),
        ({"Action": "GetObject"}, "Action"),
        ({"Action": "s3:Get:Object"}, "Action"),
        ({"Action": ["s3:*", None]}, "Action[1]"),
        ({"Action": "s_3:Get"}, "Action"),
        ({"Resource": "-"}, "Resource"),
        ({"NotResource": "*"}, "Resource"),
        ({"Resource": "bucket"}, "Resource"),
        ({"Resource": ["*", "arn:aws"]}, "Resource[1]"),
        ({"Resource": {}}, "Resource"),
        ({"Principal": "*"}, "Principal"),
        ({"NotPrincipal": {"AWS": "*"}}, "NotPrincipal"),
        ({"effect": "Allow"}, "effect"),
        ({"Condition": []}, "Condition"),
        ({"Condition": {"Like": {"aws:x": "y"}}}, "Condition.Like"),
        ({"Condition": {"NullIfExists": {"aws:x": "true"}}}, "Condition.NullIfExists"),
        ({"Condition": {"DateLessThan": {"aws:x": "soon"}}}, 'Condition.DateLessThan["aws:x"]'),
        ({"Condition": {"DateEquals": {"aws:x": [0, True]}}}, 'Condition.DateEquals["aws:x"][1]'),
        ({"Condition": {"stringEquals": {"aws:x": "y"}}}, "Condition.stringEquals"),
        ({"Condition": {"Bool": {"aws:x": [True, None]}}}, 'Condition.Bool["aws:x"][1]'),
        ({"Condition": {"NumericEquals": {"s3:n": 0.5}}}, 'Condition.NumericEquals["s3:n"]'),
        ({"Condition": {"NumericEquals": {"s3:n": 2.0**54}}}, 'Condition.NumericEquals["s3:n"]'),
        ({"Condition": {"NumericEquals": {"s3:n": math.nan}}}, 'Condition.NumericEquals["s3:n"]'),
        ({"Condition": {"StringLike": {"aws:x": "\u20ac"}}}, 'Condition.StringLike["aws:x"]'),
    ],
)
def test_an_invalid_member_of_a_statement_is_named(members: Document, path: str) -> None:
    assert fields(statement(**members)) == [f"policy_document.Statement[0].{path}"]


@pytest.mark.parametrize(
    "operator",
    ["StringEquals", "StringNotEqualsIgnoreCase", "ForAnyValue:StringLike", "DateLessThanEquals", "Null",
     "ForAllValues:ArnLikeIfExists", "NumericGreaterThan", "NotIpAddress", "BinaryEquals", "BoolIfExists"],
)  # fmt: skip
def test_iams_condition_operators_are_known(operator: str) -> None:
    values: list[JsonValue] = ["2027-01-31"] if operator.startswith("Date") else ["y", 1, True]
    assert fields(statement(Condition={operator: {"aws:x": values}})) == []


@pytest.mark.parametrize("document", [{}, {"Statement": None}, {"Statement": []}])
def test_a_policy_without_statements_is_refused(document: Document) -> None:
    assert fields({"Version": "2012-10-17", **document}) == ["policy_document.Statement"]


def test_a_sid_used_twice_is_refused() -> None:
    """An empty Sid counts as absent."""
    (one,) = (statement(Sid="a")["Statement"],)
    assert isinstance(one, list)
    assert fields({"Version": "2012-10-17", "Statement": one * 2}) == ["policy_document.Statement[1].Sid"]
    (none,) = (statement(Sid="")["Statement"],)
    assert isinstance(none, list)
    assert fields({"Version": "2012-10-17", "Statement": none * 2}) == []


def test_all_violations_of_a_policy_are_reported() -> None:
    document: Document = {"Version": "1", "Foo": 1, "Statement": [5, {"Effect": "x", "Sid": "-"}]}
    assert set(fields(document)) == {
        "policy_document.Foo",
        "policy_document.Version",
        "policy_document.Statement[0]",
        "policy_document.Statement[1].Sid",
        "policy_document.Statement[1].Effect",
        "policy_document.Statement[1].Action",
        "policy_document.Statement[1].Resource",
    }


def test_the_size_counts_on_the_canonical_form() -> None:
    room = policy.LIMIT - len(policy.canonical(statement(Sid="")))
    assert fields(statement(Sid="x" * room)) == []
    assert fields(statement(Sid="x" * (room + 1))) == ["policy_document"]
    assert policy.violations(statement(), limit=10, field="session_policy")[0].field == "session_policy"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"Action": "*"}, "iam:CreateUser"),
        ({"Action": "iam:*"}, "iam:CreateAccessKey"),
        ({"Action": ["s3:*", "IAM:createrole"]}, "iam:CreateRole"),
        ({"Action": "iam:Pass?ole"}, "iam:PassRole"),
        ({"Action": "-", "NotAction": "s3:*"}, "iam:CreateUser"),
        ({"Action": "sts:AssumeRole"}, "sts:AssumeRole"),
    ],
)
def test_a_policy_that_can_outlive_its_lease_is_warned_of(members: Document, expected: str) -> None:
    """Who can create users, keys or roles keeps access after a revocation."""
    (warning,) = policy.warnings(statement(**members))
    assert "Statement[0]" in warning
    assert expected in warning
    assert "outlive its revocation" in warning


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"Effect": "Deny", "Action": "*"},
        {"Action": "iam:Get*"},
        {"Action": "-", "NotAction": ["iam:*", "sts:*"]},
        {"Action": "sts:AssumeRole", "Resource": "arn:aws:iam::123456789012:role/app"},
    ],
)
def test_a_policy_that_ends_with_its_lease_is_not_warned_of(members: Document) -> None:
    assert policy.warnings(statement(**members)) == []


def test_many_wildcards_are_matched_quickly() -> None:
    assert policy.warnings(statement(Action="iam:" + "*a?" * 600 + "z")) == []
