"""Checks the rules of a role: the fields of each type, and AWS's limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lessor_server.domain.aws import arn, tags
from lessor_server.domain.mount import Mount
from lessor_server.domain.policy import policy
from lessor_server.domain.role import CredentialType, Role, partition_warnings, review

ACCOUNT = "arn:aws:iam::123456789012"
HOUR = timedelta(hours=1)
MOUNT = Mount("aws", max_lease_ttl=100 * HOUR)
DOCUMENT = policy.canonical(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}}
)
USER, ASSUMED, FEDERATED, SESSION = CredentialType
ROLES = {
    USER: Role("aws", "app", USER, policy_document=DOCUMENT),
    ASSUMED: Role("aws", "app", ASSUMED, role_arns=(f"{ACCOUNT}:role/app",)),
    FEDERATED: Role("aws", "app", FEDERATED, policy_document=DOCUMENT),
    SESSION: Role("aws", "app", SESSION),
}
GOES_WITH: list[tuple[str, object, set[CredentialType]]] = [
    ("role_arns", (f"{ACCOUNT}:role/app",), {ASSUMED}),
    ("policy_arns", (f"{ACCOUNT}:policy/app",), {USER, ASSUMED, FEDERATED}),
    ("policy_document", DOCUMENT, {USER, ASSUMED, FEDERATED}),
    ("iam_groups", ("staff",), {USER, ASSUMED, FEDERATED}),
    ("iam_tags", (("team", "a"),), {USER}),
    ("session_tags", (("team", "a"),), {ASSUMED, FEDERATED}),
    ("source_identity", "alice", {ASSUMED}),
    ("external_id", "partner-7", {ASSUMED}),
    ("user_path", "/ci/", {USER}),
    ("permissions_boundary_arn", f"{ACCOUNT}:policy/edge", {USER}),
    ("default_sts_ttl", HOUR, {ASSUMED, FEDERATED, SESSION}),
    ("max_sts_ttl", HOUR, {ASSUMED, FEDERATED, SESSION}),
    ("default_ttl", HOUR, {USER}),
    ("max_ttl", HOUR, {USER}),
    ("mfa_serial_number", f"{ACCOUNT}:mfa/alice", {ASSUMED, SESSION}),
    ("max_leases", 7, {USER, ASSUMED, FEDERATED, SESSION}),
]


def role(kind: CredentialType, **changes: Any) -> Role:
    """Return a good role of ``kind`` with ``changes`` made to it."""
    return replace(ROLES[kind], **changes)


def fields(subject: Role) -> list[str]:
    """Return the paths of all violations."""
    return [violation.field for violation in review(subject, MOUNT).violations]


@pytest.mark.parametrize("kind", CredentialType)
@pytest.mark.parametrize(("field", "value", "kinds"), GOES_WITH)
def test_a_field_is_refused_with_any_other_type(
    kind: CredentialType, field: str, value: object, kinds: set[CredentialType]
) -> None:
    assert fields(role(kind, **{field: value})) == ([] if kind in kinds else [field])


@pytest.mark.parametrize("kind", CredentialType)
def test_transitive_keys_go_with_assumed_roles_only(kind: CredentialType) -> None:
    subject = role(ASSUMED, session_tags=(("team", "a"),), transitive_tag_keys=("team",))
    assert fields(subject) == []
    found = fields(role(kind, transitive_tag_keys=("team",)))
    assert ("transitive_tag_keys" in found) == (kind is not ASSUMED)
    assert "transitive_tag_keys[0]" in found


@pytest.mark.parametrize(
    ("kind", "changes", "paths"),
    [
        (USER, {"name": "a/b"}, ["name"]),
        (USER, {"max_leases": -1}, ["max_leases"]),
        (ASSUMED, {"role_arns": ()}, ["role_arns"]),
        (ASSUMED, {"role_arns": ("app", f"{ACCOUNT}:user/x")}, ["role_arns[0]", "role_arns[1]"]),
        (ASSUMED, {"role_arns": (f"{ACCOUNT}:role/app",) * 2}, ["role_arns[1]"]),
        (ASSUMED, {"role_arns": (f"{ACCOUNT}:role/a*/app",)}, ["role_arns[0]"]),
        (ASSUMED, {"external_id": "x"}, ["external_id"]),
        (ASSUMED, {"source_identity": "a b"}, ["source_identity"]),
        (SESSION, {"mfa_serial_number": "short"}, ["mfa_serial_number"]),
        (FEDERATED, {"policy_document": ""}, ["policy_document"]),
        (USER, {"policy_arns": ("x",)}, ["policy_arns[0]"]),
        (USER, {"policy_arns": (f"{ACCOUNT}:policy/a,{ACCOUNT}:policy/b",)}, ["policy_arns[0]"]),
        (USER, {"policy_arns": (f"{ACCOUNT}:policy/a:b/c",)}, ["policy_arns[0]"]),
        (ASSUMED, {"role_arns": (f"{ACCOUNT}:role/a,{ACCOUNT}:role/b",)}, ["role_arns[0]"]),
        (ASSUMED, {"role_arns": (f"{ACCOUNT}:role/a-*,{ACCOUNT}:role/b",)}, ["role_arns[0]"]),
        (ASSUMED, {"role_arns": ("arn:aws-foo:iam::123456789012:role/a",)}, ["role_arns[0]"]),
        (
            USER,
            {"permissions_boundary_arn": "arn:aws-:iam::123456789012:policy/a"},
            ["permissions_boundary_arn"],
        ),
        (USER, {"policy_arns": tuple(f"{ACCOUNT}:policy/p{n}" for n in range(21))}, ["policy_arns"]),
        (ASSUMED, {"policy_arns": tuple(f"{ACCOUNT}:policy/p{n}" for n in range(11))}, ["policy_arns"]),
        (USER, {"permissions_boundary_arn": f"{ACCOUNT}:role/app"}, ["permissions_boundary_arn"]),
        (USER, {"iam_groups": ("a b", "ok")}, ["iam_groups[0]"]),
        (USER, {"iam_groups": tuple(f"g{n}" for n in range(11))}, ["iam_groups"]),
        (USER, {"iam_groups": ("x" * 129,)}, ["iam_groups[0]"]),
        (
            USER,
            {"policy_document": '{"Version":"1"}'},
            ["policy_document.Version", "policy_document.Statement"],
        ),
    ],
)
def test_an_invalid_field_of_a_role_is_named(
    kind: CredentialType, changes: dict[str, object], paths: list[str]
) -> None:
    assert fields(role(kind, **changes)) == paths


POLICY_FOR = policy.canonical(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/{{identity.name}}"},
    }
)


@pytest.mark.parametrize(
    ("kind", "changes", "paths"),
    [
        (ASSUMED, {"source_identity": "{{identity.name_sha256}}"}, []),
        (ASSUMED, {"source_identity": "{{identity.email}}"}, ["source_identity"]),
        (ASSUMED, {"source_identity": "{{identity.name}} x"}, ["source_identity"]),
        (ASSUMED, {"session_tags": (("team", "{{identity.labels.team}}"),)}, []),
        (FEDERATED, {"session_tags": (("who", "x{{identity.name}}"),)}, []),
        (ASSUMED, {"session_tags": (("team", "{{identity.labels.team"),)}, ['session_tags["team"]']),
        (ASSUMED, {"session_tags": (("{{identity.name}}", "x"),)}, ['session_tags["{{identity.name}}"]']),
        (USER, {"iam_tags": (("who", "{{identity.name}}"),)}, ['iam_tags["who"]']),
        (USER, {"policy_document": POLICY_FOR}, []),
        (ASSUMED, {"policy_document": POLICY_FOR}, []),
        (USER, {"policy_document": POLICY_FOR.replace("2012", "2008")}, ["policy_document.Version"]),
        (
            USER,
            {"policy_document": POLICY_FOR.replace("s3:Get*", "s3:{{identity.name}}")},
            ["policy_document.Statement[0].Action"],
        ),
    ],
)
def test_templates_are_checked_when_the_role_is_written(
    kind: CredentialType, changes: dict[str, object], paths: list[str]
) -> None:
    assert fields(role(kind, **changes)) == paths


@pytest.mark.parametrize("path", ["/", "/a/", "/a/b!~/", "/" + "x" * 486 + "/"])
def test_a_path_that_iam_takes_below_ours_is_valid(path: str) -> None:
    assert fields(role(USER, user_path=path)) == []


@pytest.mark.parametrize("path", ["a", "/a", "a/", "/a b/", "/é/", "/a\n/", "/" + "x" * 487 + "/"])
def test_a_path_that_iam_refuses_is_refused(path: str) -> None:
    assert fields(role(USER, user_path=path)) == ["user_path"]


@pytest.mark.parametrize(
    ("given_tags", "path"),
    [
        ({"": "x"}, 'iam_tags[""]'),
        ({"k" * 129: "x"}, None),
        ({"k": "v" * 257}, 'iam_tags["k"]'),
        ({"k": "a;b"}, 'iam_tags["k"]'),
        ({"a|b": ""}, 'iam_tags["a|b"]'),
        ({"AWS:x": ""}, 'iam_tags["AWS:x"]'),
        ({"lessor:lease": ""}, 'iam_tags["lessor:lease"]'),
        ({"Team": "", "team": ""}, 'iam_tags["team"]'),
        ({f"k{n}": "" for n in range(48)}, "iam_tags"),
    ],
)
def test_a_tag_that_aws_refuses_is_named(given_tags: dict[str, str], path: str | None) -> None:
    (found,) = fields(role(USER, iam_tags=tags.of(given_tags)))
    assert found == path or (path is None and found.startswith("iam_tags["))


def test_tags_of_any_language_are_valid() -> None:
    given_tags = {"Größe": "10 km/h", "名前": "", "a.b:c/d=e+f-g@h": "x"} | {f"k{n}": "" for n in range(44)}
    assert fields(role(USER, iam_tags=tags.of(given_tags))) == []


@pytest.mark.parametrize(
    ("kind", "changes", "paths"),
    [
        (USER, {"default_ttl": timedelta(0)}, ["default_ttl"]),
        (USER, {"default_ttl": timedelta(seconds=1.5)}, ["default_ttl"]),
        (USER, {"max_ttl": timedelta(days=3651)}, ["max_ttl", "max_ttl"]),
        (USER, {"max_ttl": 101 * HOUR}, ["max_ttl"]),
        (USER, {"default_ttl": 101 * HOUR}, ["default_ttl"]),
        (USER, {"default_ttl": 2 * HOUR, "max_ttl": HOUR}, ["default_ttl"]),
        (ASSUMED, {"default_sts_ttl": 2 * HOUR, "max_sts_ttl": HOUR}, ["default_sts_ttl"]),
        (ASSUMED, {"default_sts_ttl": timedelta(seconds=899)}, ["default_sts_ttl"]),
        (ASSUMED, {"max_sts_ttl": timedelta(seconds=899)}, ["max_sts_ttl"]),
        (ASSUMED, {"max_sts_ttl": timedelta(seconds=43_201)}, ["max_sts_ttl"]),
        (SESSION, {"max_sts_ttl": timedelta(seconds=129_600)}, []),
        (FEDERATED, {"default_sts_ttl": timedelta(seconds=129_601)}, ["default_sts_ttl"]),
    ],
)
def test_a_ttl_stays_within_role_mount_and_aws(
    kind: CredentialType, changes: dict[str, object], paths: list[str]
) -> None:
    assert fields(role(kind, **changes)) == paths


def test_all_violations_of_a_role_are_reported() -> None:
    bad = Role("aws", "..", USER, role_arns=("x",), max_leases=-1, policy_arns=("y",), user_path="z")
    assert set(fields(bad)) == {
        "name",
        "role_arns",
        "role_arns[0]",
        "max_leases",
        "policy_arns[0]",
        "user_path",
    }


def test_more_policies_than_the_default_quota_are_warned_of() -> None:
    arns = tuple(f"{ACCOUNT}:policy/p{n}" for n in range(11))
    assert "quota" in review(role(USER, policy_arns=arns), MOUNT).warnings[0]
    assert review(role(USER, policy_arns=arns[:10]), MOUNT).warnings == ()


def test_a_role_whose_policy_can_outlive_its_lease_is_warned_of() -> None:
    document = policy.canonical(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    )
    found = review(role(USER, policy_document=document), MOUNT)
    assert found.violations == ()
    assert "outlive its revocation" in found.warnings[0]


def test_arns_of_another_partition_than_the_roots_are_warned_of() -> None:
    """At most three are named."""
    document = policy.canonical(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": "s3:*",
                    "Resource": ["arn:aws:s3:::b", "arn:aws-cn:s3:::b", "*"],
                }
            ],
        }
    )
    subject = role(
        USER, policy_document=document, policy_arns=(f"{ACCOUNT}:policy/a", "arn:aws-cn:iam::aws:policy/R")
    )
    assert partition_warnings(subject, "") == []
    found = partition_warnings(subject, "aws-cn")
    assert [warning.split(" ")[0] for warning in found] == [
        "policy_arns[0]",
        "policy_document.Statement[0].Resource[0]",
    ]
    assert all("write arn:aws-cn:" in warning for warning in found)
    many = role(USER, policy_arns=tuple(f"{ACCOUNT}:policy/p{n}" for n in range(5)), policy_document="")
    assert len(partition_warnings(many, "aws-us-gov")) == 4
    assert partition_warnings(many, "aws-us-gov")[-1] == "and 2 more ARNs"


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-eusc"])
def test_arns_of_every_partition_are_known(partition: str) -> None:
    assert arn.is_role(f"arn:{partition}:iam::123456789012:role/path/app")
    assert arn.is_policy(f"arn:{partition}:iam::123456789012:policy/path/app")
    assert arn.is_policy(f"arn:{partition}:iam::aws:policy/ReadOnlyAccess")
    assert str(arn.parse_arn(f"arn:{partition}:s3:::a:b")) == f"arn:{partition}:s3:::a:b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/a b",
        "arn:aws:iam::12345678901:role/app",
        "arn:aws:iam:us-east-1:123456789012:role/app",
        "arn:aws:sts::123456789012:role/app",
        "arn:gcp:iam::123456789012:role/app",
        "arn:aws:iam::aws:role/app",
        "arn:aws:iam::123456789012:role/app*",
        "arn:aws:iam::123456789012:role/app\n",
        "arn:aws:iam::123456789012:role/" + "x" * 65,
    ],
)
def test_only_the_arn_of_one_role_is_valid(text: str) -> None:
    assert not arn.is_role(text)


@pytest.mark.parametrize(
    ("pattern", "asked", "allowed"),
    [
        ("role/app", "role/app", True),
        ("role/app", "role/app2", False),
        ("role/app-*", "role/app-1", True),
        ("role/*-app-*x", "role/a-app-bx", True),
        ("role/*", "role/deep/app", False),
        ("role/deep/*", "role/deep/app", True),
        ("role/deep/*", "role/deep/er/app", False),
        ("role/app.x", "role/appyx", False),
        ("role/app-*", "role/APP-1", False),
        ("role/*", "user/app", False),
    ],
)
def test_a_star_does_not_match_a_slash(pattern: str, asked: str, *, allowed: bool) -> None:
    assert arn.allows(f"{ACCOUNT}:{pattern}", f"{ACCOUNT}:{asked}") is allowed


def test_a_role_without_any_permission_is_warned_of() -> None:
    bare = role(USER, policy_document="")
    (warning,) = review(bare, MOUNT).warnings
    assert warning.startswith("the role has no policy: its credentials may do nothing; set policy_document")
    for given in ({"policy_arns": (f"{ACCOUNT}:policy/app",)}, {"iam_groups": ("staff",)}):
        assert review(replace(bare, **given), MOUNT).warnings == ()


@pytest.mark.parametrize("kind", [ASSUMED, SESSION])
def test_a_session_without_a_policy_is_not_warned_of(kind: CredentialType) -> None:
    """It has the permissions of the assumed role, or of the root's user."""
    assert review(role(kind), MOUNT).warnings == ()


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
@pytest.mark.parametrize("kind", [USER, ASSUMED, FEDERATED])
def test_administrator_access_by_arn_is_warned_of(kind: CredentialType, partition: str) -> None:
    arns = (f"{ACCOUNT}:policy/app", f"arn:{partition}:iam::aws:policy/AdministratorAccess")
    (warning,) = review(role(kind, policy_arns=arns), MOUNT).warnings
    assert warning.startswith("policy_arns[1] is AdministratorAccess")


def test_a_boundary_that_limits_nothing_is_warned_of() -> None:
    boundary = "arn:aws:iam::aws:policy/AdministratorAccess"
    (warning,) = review(role(USER, permissions_boundary_arn=boundary), MOUNT).warnings
    assert warning == "permissions_boundary_arn is AdministratorAccess, which limits nothing"


@pytest.mark.parametrize(
    "text",
    [
        f"{ACCOUNT}:policy/AdministratorAccess",
        "arn:aws:iam::aws:policy/AdministratorAccess-Amplify",
        "arn:aws:iam::aws:policy/job-function/AdministratorAccess",
        "arn:aws:iam::aws:policy/ReadOnlyAccess",
    ],
)
def test_another_policy_is_not_taken_for_administrator_access(text: str) -> None:
    assert review(role(USER, policy_arns=(text,)), MOUNT).warnings == ()
