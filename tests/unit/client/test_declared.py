"""Checks files of ``lessor apply``: how they are read, and which changes they lead to."""

from __future__ import annotations

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lessor.cli.declared import DeclaredMount, normal_role, normal_static_role, parse_declared
from lessor.cli.formats import yaml_text
from lessor.cli.plan import CHANGE, CREATE, DELETE, PlannedChange, plan_changes
from lessor.cli.yaml_files import parse_yaml
from lessor.v1 import role_pb2
from lessor.values import JsonValue

FILE = b"""
mounts:
  aws:
    max_users: 100
    default_lease_ttl: 1h
    lease_defaults: {lease: 1h}
    roles:
      reader:
        credential_type: iam_user
        max_ttl: 90m
        iam_tags: {team: a}
        policy_document:
          Version: 2012-10-17
          Statement: {Effect: Allow, Action: 's3:*', Resource: '*'}
    static_roles:
      reporter: {username: reporter, rotation_period: 7d, live_keys: 2}
  team-b:
"""
POLICY: JsonValue = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def declared(content: bytes = FILE) -> list[DeclaredMount]:
    """Parse a file that has no problems."""
    problems: list[str] = []
    found = parse_declared(parse_yaml(content, "x.yaml"), problems)
    assert problems == []
    return found


def changes(
    wanted: DeclaredMount, there: DeclaredMount | None, *, prune: bool = False
) -> list[PlannedChange]:
    """Return the changes of one engine."""
    return list(plan_changes(wanted, there, prune=prune))


def test_a_file_is_read_in_the_form_in_which_a_server_is() -> None:
    aws, team_b = declared()
    assert aws.settings == {"max_users": 100, "default_lease_ttl": "1h"}
    assert aws.lease_defaults == {"lease": "1h"}
    assert aws.roles["reader"] == {
        "credential_type": "IAM_USER",
        "policy_document": POLICY,
        "iam_tags": {"team": "a"},
        "max_ttl": "1h30m",
    }
    assert aws.static_roles["reporter"] == {"username": "reporter", "rotation_period": "168h"}
    assert team_b == DeclaredMount("team-b")


def test_what_is_exported_is_read_back() -> None:
    role = role_pb2.Role(name="r", credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=["a"], etag="1")
    role.policy_document.update({"Version": "2012-10-17", "Statement": {"Effect": "Allow"}})
    role.max_sts_ttl.FromSeconds(0)
    static = role_pb2.StaticRole(
        name="s", username="no", rotation_schedule="0 3 * * *", access_key="AKIA", held=True
    )
    static.assume_chain.add(role_arn="arn", external_id="007")
    mount = DeclaredMount(
        "on", {"max_users": 5}, {"lease": "1h"}, {"r": normal_role(role)}, {"s": normal_static_role(static)}
    )
    text = yaml_text({"mounts": {"on": mount.as_plain()}})
    assert declared(text.encode()) == [mount]
    assert "AKIA" not in text


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**31), 2**31 - 1) | st.booleans() | st.none()))
def test_the_reader_returns_what_the_writer_was_given(content: dict[str, JsonValue]) -> None:
    """Also texts that look like dates, numbers or booleans, in YAML 1.1 or 1.2."""
    assert parse_yaml(yaml_text(content).encode(), "x") == content


@pytest.mark.parametrize(
    "text", ["2012-10-17", "yes", "no", "on", "12:30", "0x1f", "1_000", "007", "012345678901", "=", "<<"]
)
def test_only_numbers_true_false_and_null_are_not_texts(text: str) -> None:
    assert parse_yaml(f"a: {text}".encode(), "x") == {"a": text}
    assert yaml.safe_load("a: 2012-10-17")["a"] != "2012-10-17", "the library's own reader differs"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\na: 2", "given twice"),
        (b"a: &x [1]\nb: *x", "reference"),
        (b"1: a", "not a text"),
        (b"a: [", "line 1"),
        (b"a: !!python/object:os.system x", "line 1"),
        (b"\xff", "UTF-8"),
        (b"[" * 5000, "nested"),
        (b"a: b\n---\na: c", "line"),
    ],
)
def test_an_ambiguous_or_malformed_file_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        parse_yaml(content, "x.yaml")
    assert words in refused.value.message
    assert refused.value.message.startswith("x.yaml is not ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "`mounts`"),
        ({"mounts": {}, "roles": {}}, "roles: is not a known key"),
        ({"mounts": {"a": []}}, "mounts.a: is not a mapping"),
        (
            {"mounts": {"a": {"max_user": 1}}},
            "mounts.a.max_user: is not a known field; did you mean max_users?",
        ),
        ({"mounts": {"a": {"state": "ENABLED"}}}, "mounts.a.state: is not a known field"),
        ({"mounts": {"a": {"max_users": "many"}}}, "mounts.a.max_users: 'many' is not a whole number"),
        ({"mounts": {"a": {"max_users": 2**40}}}, "not a whole number in range"),
        ({"mounts": {"a": {"roles": []}}}, "mounts.a.roles: is not a mapping"),
        ({"mounts": {"a": {"roles": {"r": None}}}}, "mounts.a.roles.r: is not a mapping"),
        ({"mounts": {"a": {"roles": {"r": {"credential_type": "USER"}}}}}, "write one of IAM_USER"),
        (
            {"mounts": {"a": {"roles": {"r": {"max_ttl": "soon"}}}}},
            "roles.r.max_ttl: 'soon' is not a valid duration",
        ),
        ({"mounts": {"a": {"roles": {"r": {"policy_arns": "x"}}}}}, "policy_arns: is not a list"),
        (
            {"mounts": {"a": {"roles": {"r": {"policy_document": "@/etc/passwd"}}}}},
            "policy_document: is neither",
        ),
        ({"mounts": {"a": {"roles": {"r": {"iam_tags": {"a": True}}}}}}, "put it in quotes"),
        ({"mounts": {"a": {"static_roles": {"s": {"held": "yes"}}}}}, "held: 'yes' is not true or false"),
        ({"mounts": {"a": {"static_roles": {"s": {"assume_chain": [{"arn": 1}]}}}}}, "assume_chain[0].arn"),
        ({"mounts": {"a": {"lease_defaults": {"mount": "b"}}}}, "lease_defaults.mount: is not a known field"),
    ],
)
def test_each_problem_of_a_file_has_its_place_and_its_fix(content: JsonValue, problem: str) -> None:
    problems: list[str] = []
    parse_declared(content, problems)
    assert len(problems) == 1
    assert problem in problems[0]


def test_nothing_changes_where_all_is_as_declared() -> None:
    aws = declared()[0]
    there = DeclaredMount(
        "aws",
        {"description": "kept", "max_lease_ttl": "24h", **aws.settings},
        aws.lease_defaults,
        {**aws.roles, "other": {}},
        {**aws.static_roles, "other": {}},
    )
    assert changes(aws, there) == []


def test_a_new_engine_gets_all_that_is_declared_in_order() -> None:
    found = changes(declared()[0], None)
    assert [(one.action, one.kind, one.name) for one in found] == [
        (CREATE, "mount", "aws"),
        (CHANGE, "lease defaults", "aws"),
        (CREATE, "role", "aws/reader"),
        (CREATE, "static role", "aws/reporter"),
    ]
    assert all(one.check is None for one in found), (
        "the server can't check roles of an engine that is not there"
    )


def test_each_field_that_differs_is_named_with_both_values() -> None:
    aws = declared()[0]
    role = {**aws.roles["reader"], "max_ttl": "2h", "policy_document": {"Version": "2012-10-17"}}
    there = DeclaredMount(
        "aws",
        {**aws.settings, "max_users": 7},
        aws.lease_defaults,
        {"reader": role},
        aws.static_roles,
        {"reader": "v1"},
    )
    mount, changed = changes(aws, there)
    assert [line for one in mount.differences for line in one.lines()] == ["max_users: 7 -> 100"]
    assert changed.action == CHANGE
    lines = [line for one in changed.differences for line in one.lines()]
    assert lines[0] == "policy_document:"
    assert lines[1] == '  - {"Version": "2012-10-17"}'
    assert lines[2].startswith('  + {"Version": "2012-10-17", "Statement": [')
    assert lines[3] == "max_ttl: 2h -> 1h30m"


def test_only_prune_deletes_and_never_an_engine() -> None:
    aws = declared()[0]
    there = DeclaredMount(
        "aws",
        aws.settings,
        aws.lease_defaults,
        {**aws.roles, "b": {}, "a": {}},
        {**aws.static_roles, "c": {}},
    )
    found = changes(aws, there, prune=True)
    assert [(one.action, one.kind, one.name) for one in found] == [
        (DELETE, "role", "aws/a"),
        (DELETE, "role", "aws/b"),
        (DELETE, "static role", "aws/c"),
    ]


def test_a_file_does_not_release_a_held_role() -> None:
    """Only ``static-role resume`` does, because another system may still rotate the user."""
    aws = declared()[0]
    held = {name: {**role, "held": True} for name, role in aws.static_roles.items()}
    there = DeclaredMount("aws", aws.settings, aws.lease_defaults, aws.roles, held)
    assert changes(aws, there) == []
