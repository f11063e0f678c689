"""Checks how roles and policies of Vault are translated, and what can't be."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from tests.support.vault_source import role_data

from lessor.cli.plain_messages import fill_plain
from lessor.cli.vault_policies import TranslatedPolicy, access_file, translate_policy
from lessor.cli.vault_roles import (
    CannotTake,
    translate_defaults,
    translate_role,
    translate_static_role,
    translate_tune,
)
from lessor.v1 import role_pb2

POLICY = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}'
ARN = "arn:aws:iam::123456789012:role/deploy"


def role(credential_type: str, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a translated role, which the protocol accepts, and its notes."""
    made = translate_role("app", role_data(credential_type, **fields))
    problems: list[str] = []
    fill_plain(role_pb2.Role(), made.role, "", problems)
    assert problems == []
    return made.role, made.notes


def test_an_iam_user_role_keeps_its_fields() -> None:
    fields = {
        "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
        "iam_groups": ["developers"],
        "iam_tags": {"team": "a"},
        "permissions_boundary_arn": "arn:aws:iam::123456789012:policy/limit",
    }
    made, notes = role("iam_user", policy_document=POLICY, user_path="/", **fields)
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
    }
    assert made == {"credential_type": "IAM_USER", "policy_document": document, **fields}
    assert notes == ()
    assert role("iam_user", user_path="/team/", policy_arns=["a"])[0]["user_path"] == "/team/"


def test_a_session_role_keeps_its_lifetimes_within_aws_limits() -> None:
    made, notes = role("assumed_role", role_arns=[ARN], default_sts_ttl=3600, max_sts_ttl=7200)
    assert (made["default_sts_ttl"], made["max_sts_ttl"], notes) == ("1h", "2h", ())
    made, notes = role("assumed_role", role_arns=[ARN], default_sts_ttl=60, max_sts_ttl=86_400)
    assert (made["default_sts_ttl"], made["max_sts_ttl"]) == ("15m", "12h")
    assert len(notes) == 2


def test_fields_that_vault_does_not_use_are_left_out_and_named() -> None:
    """Here they would have an effect, or be refused."""
    made, notes = role("assumed_role", role_arns=[ARN], mfa_serial_number="123456789", iam_tags={"a": "b"})
    assert made == {"credential_type": "ASSUMED_ROLE", "role_arns": [ARN]}
    assert [note.split()[0] for note in notes] == ["iam_tags", "mfa_serial_number"]
    assert "iam_groups" not in role("session_token", iam_groups=["g"])[0]
    assert role("session_token", mfa_serial_number="123456789")[0]["mfa_serial_number"] == "123456789"


def test_templates_of_an_entity_become_those_of_an_identity() -> None:
    document = json.dumps(
        {"Resource": "arn:aws:s3:::{{identity.entity.name}}/{{ identity.entity.metadata.team }}"}
    )
    made, notes = role("iam_user", policy_document=document)
    expected = "arn:aws:s3:::{{identity.name}}/{{identity.labels.team}}"
    assert made["policy_document"] == {"Resource": expected}
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("credential_type", "fields", "why"),
    [
        ("iam_user,federation_token", {}, "the types iam_user and federation_token"),
        ("", {"credential_types": ["iam_user", "federation_token"]}, "one role of each type"),
        ("", {}, "is the mount an AWS engine"),
        ("assumed_role", {}, "no role_arns"),
        ("federation_token", {}, "no policy"),
        ("iam_user", {"policy_document": "{"}, "policy_document can't be read"),
        ("iam_user", {"policy_document": "@/etc/passwd"}, "policy_document can't be read"),
        ("iam_user", {"policy_document": '{"a": 1, "a": 2}'}, "given twice"),
        ("iam_user", {"policy_document": '{"a": "{{identity.entity.id}}"}'}, "{{identity.entity.id}}"),
        ("iam_user", {"max_sts_ttl": 3600}, "max_sts_ttl"),
        ("iam_user", {"invalid_data": "x"}, "old version"),
    ],
)
def test_what_has_no_equivalent_is_refused_with_the_reason(
    credential_type: str, fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(CannotTake) as refused:
        role(credential_type, **fields)
    assert why in str(refused.value)


@pytest.mark.parametrize("name", ["a@b", "x" * 65, "a/b", "-a"])
def test_a_name_that_no_role_can_have_is_refused(name: str) -> None:
    with pytest.raises(CannotTake, match="name"):
        translate_role(name, role_data("iam_user"))


def test_a_static_role_is_held() -> None:
    data = {"name": "s", "id": "AIDA", "username": "billing", "rotation_period": 86400}
    made = translate_static_role("s", data)
    assert made.role == {"username": "billing", "rotation_period": "24h", "held": True}
    chained = translate_static_role("s", {**data, "assume_role_arn": ARN, "external_id": "x"})
    assert chained.role["assume_chain"] == [{"role_arn": ARN, "external_id": "x"}]
    with pytest.raises(CannotTake):
        translate_static_role("s", {"username": "billing"})


def test_lifetimes_of_the_engine_are_read_in_each_form() -> None:
    notes: list[str] = []
    assert translate_defaults({"lease": "1h0m0s", "lease_max": "24h0m0s"}, notes) == {
        "lease": "1h",
        "lease_max": "24h",
    }
    assert translate_defaults({"lease": 1800, "lease_max": None}, notes) == {"lease": "30m"}
    assert translate_defaults(None, notes) is None
    assert translate_defaults({"lease": "0s", "lease_max": "0s"}, notes) is None
    assert notes == []
    assert translate_defaults({"lease": "2h", "lease_max": "1h"}, notes) == {"lease": "1h", "lease_max": "1h"}
    assert len(notes) == 1
    tune = {"default_lease_ttl": 2764800, "max_lease_ttl": 86400, "description": "x", "force_no_cache": False}
    expected = {"default_lease_ttl": "24h", "max_lease_ttl": "24h", "description": "x"}
    assert translate_tune(tune) == expected


# --- policies -------------------------------------------------------------------------------------------


def policy(text: str, mount: str = "aws", to: str = "aws") -> TranslatedPolicy:
    """Translate a policy."""
    return translate_policy("app", text, mount, to)


def rules(text: str, mount: str = "aws", to: str = "aws") -> dict[str, list[str]]:
    """Return the capabilities of each path of a translated policy."""
    return {rule.path: rule.capabilities for rule in policy(text, mount, to).rules}


def test_rules_of_the_engine_are_kept_and_others_named() -> None:
    made = policy(
        """
        # a comment
        path "aws/creds/app" { capabilities = ["read"] }
        path "aws/roles/*" { capabilities = ["create", "update", "list"] }
        path "+/creds/x" { capabilities = ["read"] }
        path "secret/data/app" { capabilities = ["read"] }
        path "auth/token/lookup-self" { capabilities = ["read"] }
        path "sys/leases/renew" { capabilities = ["update"] }
        path "sys/leases/lookup/aws/*" { capabilities = ["list", "sudo"] }
        path "aws2/creds/x" { capabilities = ["read"] }
        """
    )
    assert [rule.path for rule in made.rules] == [
        "aws/creds/app",
        "aws/roles/*",
        "+/creds/x",
        "sys/leases/lookup/aws/*",
    ]
    assert made.left_out == ("secret/data/app", "auth/token/lookup-self", "sys/leases/renew", "aws2/creds/x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('path "/aws/creds/a" { capabilities = ["read"] }', {"aws/creds/a": ["read"]}),
        ('path "aws/sts/a" { capabilities = ["update"] }', {"aws/creds/a": ["update", "read"]}),
        (
            'path "aws/roles/a" { policy = "write" }',
            {"aws/roles/a": ["create", "read", "update", "delete", "list"]},
        ),
        ('path "aws/roles/a" { capabilities = ["read", "deny"] }', {"aws/roles/a": ["deny"]}),
        ('path "aws/roles/a" { capabilities = ["patch", "read"] }', {"aws/roles/a": ["read"]}),
        ('path "aws/roles/a" { capabilities = ["patch"] }', {}),
        ('{"path": {"aws/creds/a": {"capabilities": ["read"]}}}', {"aws/creds/a": ["read"]}),
        (
            'path "aws/creds/a" { capabilities = ["read"] }\npath "aws/sts/a" { capabilities = ["deny"] }',
            {"aws/creds/a": ["deny"]},
        ),
        (
            'path "aws/creds/{{identity.entity.name}}" { capabilities = ["read"] }',
            {"aws/creds/{{identity.name}}": ["read"]},
        ),
    ],
)
def test_a_rule_has_the_same_meaning(text: str, expected: dict[str, list[str]]) -> None:
    assert rules(text) == expected


@pytest.mark.parametrize(
    "restriction",
    [
        'allowed_parameters = { "ttl" = ["1h"] }',
        'denied_parameters = { "*" = [] }',
        'min_wrapping_ttl = "1m"',
        'required_parameters = ["other"]',
        'control_group = { ttl = "4h" }',
    ],
)
def test_a_restriction_without_an_equivalent_denies(restriction: str) -> None:
    """Without the rule, a broader one could allow more than in Vault."""
    text = f'path "aws/creds/app" {{\n  capabilities = ["read"]\n  {restriction}\n}}'
    assert rules(text) == {"aws/creds/app": ["deny"]}
    assert policy(text).notes


def test_required_parameters_that_exist_here_are_required() -> None:
    text = 'path "aws/creds/app" {\n  capabilities = ["read"]\n  required_parameters = ["ttl"]\n}'
    (rule,) = policy(text).rules
    assert (rule.capabilities, rule.require) == (["read"], ["ttl"])


def test_an_engine_can_get_another_name() -> None:
    text = """
    path "team/aws/creds/a" { capabilities = ["read"] }
    path "sys/leases/lookup/team/aws/*" { capabilities = ["list"] }
    path "sys/mounts/team/aws/tune" { capabilities = ["update"] }
    """
    assert list(rules(text, "team/aws", "aws-team")) == [
        "aws-team/creds/a",
        "sys/leases/lookup/aws-team/*",
        "sys/mounts/aws-team/tune",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'path "aws/creds/a',
        "{",
        'path "aws/*/a" { capabilities = ["read"] }',
        'path "aws/cre+ds/a" { capabilities = ["read"] }',
        'path "aws/creds/{{identity.entity.id}}" { capabilities = ["read"] }',
        'path = "aws"',
    ],
)
def test_a_policy_that_can_not_be_translated_is_refused(text: str) -> None:
    with pytest.raises(CannotTake):
        policy(text)


def test_the_access_file_has_a_comment_for_all_that_changed() -> None:
    made = policy(
        'path "aws/creds/a" { capabilities = ["read"]\n allowed_parameters = { "x" = [] } }\n'
        'path "secret/\\u0007x" { capabilities = ["read"] }'
    )
    text = access_file([made])
    assert tomllib.loads(text)["policies"] == [
        {"name": "app", "rules": [{"path": "aws/creds/a", "capabilities": ["deny"]}]}
    ]
    assert "# aws/creds/a: allowed_parameters has no equivalent" in text
    assert "# left out: secret/" in text
