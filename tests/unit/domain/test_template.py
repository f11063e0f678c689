"""Checks templates of the caller, and where they may be in a role."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from lessor_server.domain.access.caller import AuthMethod, Principal
from lessor_server.domain.errors.preconditions import RoleNotUsable, TemplateLabelUnknown, TemplateValueUnsafe
from lessor_server.domain.policy import policy, template
from lessor_server.domain.policy.template import identity_fields

ALICE = identity_fields("alice@example.com", {"team": "blue", "a.b/c": "deep", "none": ""})


def document(version: str = "2012-10-17", **members: Any) -> dict[str, Any]:
    """Return a policy of one statement with these members."""
    statement = {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": ["*"], **members}
    return {"Version": version, "Statement": [statement]}


def paths(subject: dict[str, Any]) -> list[str]:
    """Return the paths of all violations of the templates in a policy."""
    return [violation.field for violation in template.policy_violations("policy_document", subject)]


def test_the_callers_name_and_labels_are_filled_in() -> None:
    assert template.filled("by {{identity.name}}!", ALICE) == "by alice@example.com!"
    assert template.filled("{{ identity.labels.team }}/{{identity.labels.a.b/c}}", ALICE) == "blue/deep"
    assert template.filled("{{identity.name_sha256}}", ALICE) == sha256(b"alice@example.com").hexdigest()
    assert template.filled("plain", ALICE) == "plain"


@pytest.mark.parametrize("key", ["nope", "none"])
def test_a_label_that_the_caller_lacks_is_an_error(key: str) -> None:
    """An empty text could mean everybody."""
    with pytest.raises(TemplateLabelUnknown, match=key):
        template.filled("x-{{identity.labels." + key + "}}", ALICE)


@pytest.mark.parametrize(
    "text",
    [
        "{{identity.email}}",
        "{{identity.labels.}}",
        "{{name}}",
        "{{}}",
        "{{identity.name}",
        "identity.name}}",
        "{{identity.name}}}}",
    ],
)
def test_an_invalid_template_is_refused(text: str) -> None:
    found = template.violations("source_identity", text)
    assert {violation.field for violation in found} == {"source_identity"}


@pytest.mark.parametrize("text", ["", "plain", "{{identity.name}}", "a-{{ identity.labels.x-y }}-b"])
def test_a_valid_template_is_accepted(text: str) -> None:
    assert template.violations("source_identity", text) == []


@pytest.mark.parametrize(
    "members",
    [
        {"Resource": "arn:aws:s3:::b/{{identity.name}}/*"},
        {"Resource": ["*", "arn:aws:s3:::b/{{identity.labels.team}}/*"]},
        {"NotResource": ["arn:aws:s3:::b/{{identity.name_sha256}}"]},
        {"Condition": {"StringEquals": {"aws:PrincipalTag/x": ["{{identity.name}}"]}}},
    ],
)
def test_a_template_may_be_in_resources_and_conditions(members: dict[str, Any]) -> None:
    assert paths(document(**members)) == []


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"Action": ["s3:{{identity.name}}"]}, "Action[0]"),
        ({"Sid": "{{identity.name}}"}, "Sid"),
        ({"Effect": "{{identity.labels.effect}}"}, "Effect"),
        (
            {"Condition": {"StringEquals": {"aws:PrincipalTag/{{identity.name}}": "x"}}},
            'Condition.StringEquals["aws:PrincipalTag/{{identity.name}}"]',
        ),
        ({"Resource": ["*", "arn:aws:s3:::{{identity.email}}"]}, "Resource[1]"),
    ],
)
def test_a_template_elsewhere_in_a_policy_is_refused(members: dict[str, Any], path: str) -> None:
    assert set(paths(document(**members))) == {f"policy_document.Statement[0].{path}"}


def test_a_template_needs_version_2012_10_17() -> None:
    """A policy of 2008, or of no version, has no variables."""
    place = "arn:aws:s3:::b/{{identity.name}}"
    old = document("2008-10-17", Resource=place)
    assert paths(old) == ["policy_document.Version"]
    assert paths({"Statement": old["Statement"]}) == ["policy_document.Version"]
    assert paths(document("2008-10-17")) == []


def test_a_policy_is_filled_in_only_in_resources_and_conditions() -> None:
    condition = {"StringEquals": {"aws:PrincipalTag/team": "{{identity.labels.team}}"}}
    subject = document(Resource="arn:aws:s3:::b/{{identity.name}}/*", Condition=condition)
    made = template.filled_policy(policy.canonical(subject), ALICE)
    statement = json.loads(made)["Statement"][0]
    assert statement["Resource"] == "arn:aws:s3:::b/alice@example.com/*"
    assert statement["Condition"] == {"StringEquals": {"aws:PrincipalTag/team": "blue"}}
    assert made == policy.canonical(json.loads(made))


def test_a_policy_that_was_stored_in_another_order_is_sent_in_iams() -> None:
    """An earlier version stored sorted keys, with the statement before the version."""
    stored = '{"Statement":{"Action":"s3:*","Effect":"Allow","Resource":"*"},"Version":"2012-10-17"}'
    assert template.filled_policy(stored, ALICE) == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    )
    assert template.filled_policy("", ALICE) == ""


@pytest.mark.parametrize(
    "name", ["*", "a?", "a/b", "a:b", "${aws:username}", "ü", "a b", "x" * 129, 'a"b', "a\nb"]
)
def test_a_value_with_policy_syntax_is_refused(name: str) -> None:
    subject = policy.canonical(document(Resource="arn:aws:s3:::b/{{identity.name}}/*"))
    with pytest.raises(TemplateValueUnsafe):
        template.filled_policy(subject, identity_fields(name, {}))
    hashed = policy.canonical(document(Resource="arn:aws:s3:::b/{{identity.name_sha256}}/*"))
    assert sha256(name.encode()).hexdigest() in template.filled_policy(hashed, identity_fields(name, {}))


def test_a_policy_that_is_too_long_when_filled_in_is_refused() -> None:
    places = ["arn:aws:s3:::b/{{identity.name}}/*"] * 20
    with pytest.raises(RoleNotUsable, match=r"has \d{4} characters for this caller, and AWS accepts 2048"):
        template.filled_policy(policy.canonical(document(Resource=places)), identity_fields("x" * 128, {}))


def test_a_value_that_looks_like_a_template_is_not_filled_in() -> None:
    sly = identity_fields("{{identity.labels.team}}", {"team": "blue"})
    assert template.filled("{{identity.name}}", sly) == "{{identity.labels.team}}"


def test_a_principal_s_labels_are_immutable() -> None:
    given = {"team": "blue"}
    who = Principal("alice", AuthMethod.TOKEN, labels=given)
    given["team"] = "red"
    assert who.labels == {"team": "blue"}
    with pytest.raises(TypeError):
        who.labels["team"] = "red"  # type: ignore[index]
    assert Principal("bob", AuthMethod.TOKEN).labels == {}
