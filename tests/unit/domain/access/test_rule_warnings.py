"""Checks the warnings of rules that have no effect, or another one than they seem to have."""

from __future__ import annotations

from itertools import product

import pytest

from lessor_server.domain.access.path_pattern import PathPattern
from lessor_server.domain.access.rule_warnings import covers, find_warnings, overlap
from lessor_server.services.permissions import path_shapes
from lessor_server.settings.access_file import load_access_rules

SHAPES = path_shapes()


def warnings(*rules: str, name: str = "a", identity: str = "") -> list[str]:
    """Return the warnings of a policy with these rules, each written as ``capabilities path``."""
    written = []
    for rule in rules:
        capabilities, _, path = rule.partition(" ")
        written.append(f'{{path = "{path}", capabilities = {capabilities.split(",")}}}')
    text = f"""
        policies = [{{name = "p", rules = [{", ".join(written)}]}}]
        [[identities]]
        name = "{name}"
        policies = ["p"]
        spiffe_id = "spiffe://example.org/{{ns}}"
        {identity}
        """
    return find_warnings(load_access_rules(text, "x"), SHAPES)


@pytest.mark.parametrize(
    "rule",
    [
        "read aws/cred/reader",
        "read aws/sts/reader",
        "read aws/creds",
        "read aws/creds/reader/",
        "read aws/creds/-x",
        "read aws/creds/a b",
        "read aws/creds/a/*",
        "read aws/cre",
        "read +",
        "update sys/leases/revoke/aws/creds/app",
        "update sys/leases/revoke/aws/creds/app/not-a-suffix",
        "list aws/+",
        "update sys/raw/*",
        "read aws/cred/{{identity.labels.x}}",
        "deny aws/cred/*",
    ],
)
def test_a_pattern_that_matches_no_path_of_a_call_is_warned_of(rule: str) -> None:
    (warning,) = warnings(rule, identity='labels = {x = "y"}')
    assert warning.startswith("policies[0](p).rules[0].path: matches no path of any call; ")


@pytest.mark.parametrize(
    "rule",
    [
        "read *",
        "read a*",
        "read +/+/+",
        "read aws/*",
        "read aws/cre*",
        "read aws/creds/*",
        "read aws/creds/a-*",
        "read aws/creds/{{identity.labels.x}}",
        "read aws/creds/a-{{identity.labels.x}}",
        "read {{identity.labels.x}}/{{identity.labels.x}}/a",
        "list aws/roles/",
        "list aws/roles",
        "list sys/leases/lookup/aws",
        "create aws/roles/app",
        "list sys/leases/lookup/aws/",
        "list sys/leases/lookup/aws/creds/",
        "list sys/leases/lookup/aws/creds/app/",
        "read sys/leases/lookup/aws/creds/app/*",
        "update sys/leases/+/aws/creds/app/0123456789abcdefghijABCD",
        "update,sudo sys/leases/revoke-prefix/aws/creds/app/",
        "update,sudo sys/access/reload",
        "sudo sys/mounts/aws/tune",
        "deny aws/creds/app",
    ],
)
def test_a_pattern_that_matches_a_path_is_not_warned_of(rule: str) -> None:
    assert warnings(rule, identity='labels = {x = "y"}') == []


def test_capabilities_that_no_call_needs_on_a_path_are_warned_of() -> None:
    (warning,) = warnings("update,list aws/creds/app")
    assert warning.startswith("policies[0](p).rules[0].capabilities: no call needs these on such a path; ")
    assert "calls need read there" in warning


def test_a_deny_beside_other_capabilities_is_warned_of() -> None:
    (warning,) = warnings("read,deny aws/creds/app")
    assert warning.startswith("policies[0](p).rules[0].capabilities: deny wins over all others")


@pytest.mark.parametrize(
    ("name", "label", "path"),
    [
        ("k8s/{ns}", "y", "aws/creds/{{identity.name}}"),
        ("k8s/prod", "y", "aws/creds/{{identity.name}}"),
        ("a+b", "y", "aws/creds/{{identity.name}}"),
        ("a", "team/{ns}", "aws/creds/{{identity.labels.x}}"),
        ("a", "y", "aws/creds/{{identity.labels.other}}"),
    ],
)
def test_a_field_that_an_identity_can_t_fill_is_warned_of(name: str, label: str, path: str) -> None:
    (warning,) = warnings(f"read {path}", name=name, identity=f'labels = {{x = "{label}"}}')
    assert f"rules[0].path: matches nothing for identities[0]({name}), whose identity." in warning


def test_a_field_that_an_identity_fills_is_not_warned_of() -> None:
    assert warnings("read aws/creds/{{identity.name}}") == []
    labelled = 'labels = {x = "{ns}"}'
    assert warnings("read aws/creds/{{identity.labels.x}}", name="k8s/{ns}", identity=labelled) == []


@pytest.mark.parametrize(
    ("deny", "allow", "warned"),
    [
        ("+/creds/*", "*", True),
        ("+/creds/prod-*", "aws/creds/*", True),
        ("+/creds/+", "aws/*", True),
        ("aws/creds/*", "*", False),
        ("aws/creds/*", "aws/creds/prod-*", False),
        ("aws/creds/prod-*", "aws/creds/*", False),
        ("aws/creds/*", "aws/roles/*", False),
        ("+/creds/prod", "aws/creds/prod", False),
        ("+/creds/*", "+/roles/*", False),
        ("+/creds/*", "+/creds/*", False),
    ],
)
def test_a_deny_that_another_pattern_overrides_is_warned_of(deny: str, allow: str, warned: bool) -> None:
    text = f"""
        policies = [
            {{name = "p", rules = [{{path = "{allow}", capabilities = ["read"]}}]}},
            {{name = "q", rules = [{{path = "{deny}", capabilities = ["deny"]}}]}},
        ]
        [[identities]]
        name = "a"
        policies = ["p", "q"]
        dns_name = "a.example"
        [[identities]]
        name = "b"
        policies = ["q"]
        dns_name = "b.example"
        """
    found = [one for one in find_warnings(load_access_rules(text, "x"), SHAPES) if "has no effect" in one]
    assert bool(found) is warned
    if warned:
        (warning,) = found
        assert warning.startswith(f"policies[1](q).rules[0].path: the deny of {deny} has no effect where")
        assert "policies[0](p).rules[0]" in warning


TEXTS = ["/".join(some) for length in (1, 2, 3) for some in product(("", "a", "ab", "b"), repeat=length)]
PATTERNS = [
    f"{text}{end}"
    for length in (1, 2)
    for some in product(("a", "ab", "+"), repeat=length)
    for text in ("/".join(some),)
    for end in ("", "*", "/*")
    if not (end == "*" and text.endswith("+"))
]


def test_overlap_and_cover_are_what_the_paths_say() -> None:
    """Every pair of small patterns, compared by the paths that they match."""
    parsed = [PathPattern(text) for text in PATTERNS]
    matched = [{text for text in TEXTS if pattern.matches(text)} for pattern in parsed]
    for (first, own), (second, given) in product(zip(parsed, matched, strict=True), repeat=2):
        assert overlap(first.text, second.text) is bool(own & given), (first.text, second.text)
        assert covers(first, second) is (given <= own), (first.text, second.text)
