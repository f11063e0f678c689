"""Checks that Lessor and IAM agree on each document of the corpus and on each managed policy of AWS."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lessor_server.domain.policy import policy
from lessor_server.domain.policy.policy import JsonValue
from tests.support.iam_rules import check_document

FOLDER = Path(__file__).resolve().parents[2] / "corpus"
ACCEPTED, REFUSED = "accepted", "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """Holds one document of the corpus; ``at`` is where IAM refuses it."""

    name: str
    verdict: str
    page: str
    document: Mapping[str, JsonValue]
    at: str = ""


def entries() -> list[Entry]:
    """Read the corpus."""
    lines = [line for file in sorted(FOLDER.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [Entry(**json.loads(line)) for line in lines]


CORPUS = entries()
BY_VERDICT = {verdict: [one for one in CORPUS if one.verdict == verdict] for verdict in (ACCEPTED, REFUSED)}


def backwards(value: JsonValue) -> JsonValue:
    """Return the same value with the members of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(one) for one in value] if isinstance(value, list) else value


def test_the_corpus_is_complete() -> None:
    """Each document has a name, a verdict and the page that it is based on."""
    assert len(CORPUS) >= 300
    assert [name for name, count in Counter(one.name for one in CORPUS).items() if count > 1] == []
    texts = Counter(json.dumps(one.document) for one in CORPUS)
    assert [text for text, count in texts.items() if count > 1] == []
    assert {one.verdict for one in CORPUS} == {ACCEPTED, REFUSED}
    assert all(":" in one.page for one in CORPUS)
    assert min(map(len, BY_VERDICT.values())) >= 100


def test_what_iam_accepts_is_never_refused() -> None:
    for entry in BY_VERDICT[ACCEPTED]:
        assert policy.violations(entry.document) == [], entry.name
        other = backwards(dict(entry.document))
        assert isinstance(other, dict), entry.name
        assert policy.violations(other) == [], entry.name
        assert policy.canonical(other) == policy.canonical(entry.document), entry.name
        check_document(policy.canonical(entry.document))
        policy.warnings(entry.document)


def test_what_iam_refuses_is_refused_where_the_error_is() -> None:
    for entry in BY_VERDICT[REFUSED]:
        path = f"policy_document.{entry.at}" if entry.at else "policy_document"
        assert path in [one.field for one in policy.violations(entry.document)], entry.name


def test_no_managed_policy_of_aws_is_refused() -> None:
    """Many are longer than an inline policy of a user may be."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data  # every process collects this file

    managed = json.loads(aws_managed_policies_data)
    assert len(managed) > 1000
    refused = {
        name: found
        for name, one in managed.items()
        if (found := policy.violations(one["Document"], limit=1_000_000))
    }
    assert refused == {}


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"Bool": {"aws:SecureTransport": "yes"}}, '"true" or "false"'),
        ({"Null": {"aws:TokenIssueTime": 1}}, '"true" or "false"'),
        ({"NumericLessThan": {"s3:max-keys": "ten"}}, "a number"),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "office"]}}, "an IP address"),
        ({"ArnLike": {"aws:SourceArn": "topic"}}, "an ARN"),
        ({"StringEquals": {"team": "x"}}, "no service prefix"),
        ({"StringEquals": {"aws:x": []}}, "lists no values"),
        ({"StringEquals": {}}, "compares nothing"),
    ],
)
def test_a_condition_that_iam_stores_and_that_cannot_match_is_warned_of(
    condition: JsonValue, words: str
) -> None:
    inner: JsonValue = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*", "Condition": condition}
    document: dict[str, JsonValue] = {"Version": "2012-10-17", "Statement": [inner]}
    assert policy.violations(document) == []
    (warning,) = policy.warnings(document)
    assert words in warning
    assert "Statement[0].Condition" in warning
