"""Checks which pattern decides, against a plain reading of the rules by regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.access.acl import Acl, Capability, IssueLimits, Policy, Rule, acl_of
from lessor_server.domain.access.path_pattern import PathPattern, violations
from lessor_server.domain.policy.template import identity_fields

NOBODY = identity_fields("ci", {})
SEGMENTS = st.sampled_from(["a", "b", "ab", "", "+"])
GIVEN_SEGMENTS = st.sampled_from(["a", "b", "ab", "abc", ""])


def no_slash_first(text: str) -> bool:
    return bool(text) and not text.startswith("/")


PATTERNS = st.builds(
    lambda segments, end: "/".join(segments) + end,
    st.lists(SEGMENTS, min_size=1, max_size=4),
    st.sampled_from(["", "", "/", "*", "/*", "a*"]),
).filter(lambda text: violations("", text) == [])
PATHS = st.lists(GIVEN_SEGMENTS, min_size=1, max_size=5).map("/".join).filter(no_slash_first)
CAPABILITIES = st.frozensets(st.sampled_from(Capability), min_size=1, max_size=3)
POLICIES = st.lists(st.dictionaries(PATTERNS, CAPABILITIES, max_size=4), min_size=1, max_size=3)


def regular(pattern: str) -> str:
    """Return the regular expression of a pattern: ``+`` is a segment, ``*`` at the end any rest."""
    fixed, rest = (pattern[:-1], ".*") if pattern.endswith("*") else (pattern, "")
    return "/".join("[^/]*" if part == "+" else re.escape(part) for part in fixed.split("/")) + rest


def wild(pattern: str) -> bool:
    return "+" in pattern or "*" in pattern


def strength(pattern: str) -> tuple[int, int, int, int, str]:
    """Return the order of the contract, one criterion after the other."""
    first = min(pattern.find(sign) if sign in pattern else 10**6 for sign in "+*")
    return (first, -pattern.endswith("*"), -pattern.count("+"), len(pattern.rstrip("*")), pattern.rstrip("*"))


def decided(policies: list[dict[str, frozenset[Capability]]], path: str, wanted: Capability) -> bool:
    """Return whether a caller with all ``policies`` has a capability on a path."""
    united: dict[str, set[Capability]] = {}
    for policy in policies:
        for pattern, capabilities in policy.items():
            united.setdefault(pattern, set()).update(capabilities)
    exact = [path, path[:-1]] if wanted is Capability.LIST and path.endswith("/") else [path]
    for one in exact:
        if one in united and not wild(one):
            return Capability.DENY not in united[one] and wanted in united[one]
    matching = [one for one in united if wild(one) and re.fullmatch(regular(one), path)]
    if not matching:
        return False
    best = united[max(matching, key=strength)]
    return Capability.DENY not in best and wanted in best


def acl(*policies: dict[str, Iterable[Capability]]) -> Acl:
    """Return what policies of patterns allow."""
    found = [
        Policy(str(index), tuple(Rule(pattern, frozenset(able)) for pattern, able in policy.items()))
        for index, policy in enumerate(policies)
    ]
    return acl_of(found, NOBODY)


def may(found: Acl, path: str, wanted: Capability) -> bool:
    grant = found.find(path, wanted)
    return grant is not None and grant.allows((wanted,))


@given(pattern=PATTERNS, path=PATHS)
def test_a_pattern_matches_what_its_regular_expression_matches(pattern: str, path: str) -> None:
    assert PathPattern(pattern).matches(path) == bool(re.fullmatch(regular(pattern), path))
    assert PathPattern(pattern).is_exact == (not wild(pattern))


@given(policies=POLICIES, path=PATHS, wanted=st.sampled_from(Capability))
def test_a_decision_is_that_of_the_plain_reading(
    policies: list[dict[str, frozenset[Capability]]], path: str, wanted: Capability
) -> None:
    assert may(acl(*policies), path, wanted) == decided(policies, path, wanted)


@given(policies=POLICIES, path=PATHS, order=st.randoms())
def test_the_order_of_rules_and_policies_changes_nothing(
    policies: list[dict[str, frozenset[Capability]]], path: str, order: object
) -> None:
    turned = [dict(reversed(policy.items())) for policy in reversed(policies)]
    for wanted in Capability:
        assert may(acl(*policies), path, wanted) == may(acl(*turned), path, wanted)


READ, LIST, DENY = Capability.READ, Capability.LIST, Capability.DENY


@pytest.mark.parametrize(
    ("winner", "loser", "path"),
    [
        ("a/b/c", "a/b/*", "a/b/c"),
        ("a/b*", "a/+/c", "a/b/c"),
        ("a/+/c", "a/*", "a/b/c"),
        ("a/+/c", "a/+/*", "a/b/c"),
        ("a/+/c/d", "a/+/+/d", "a/b/c/d"),
        ("a/+/b/c*", "a/+/b/*", "a/x/b/cd"),
        ("+/b/+", "+/a*", "+/b/c"),
    ],
)
def test_the_more_specific_pattern_decides_and_the_other_is_runner_up(
    winner: str, loser: str, path: str
) -> None:
    found = acl({loser: [DENY]}, {winner: [READ]})
    assert may(found, path, READ)
    matching = [one.pattern for one in found.candidates(path, READ)]
    assert matching == [one for one in (winner, loser) if re.fullmatch(regular(one), path)]


def test_deny_in_one_policy_wins_over_the_same_pattern_in_others() -> None:
    found = acl({"a/*": [READ]}, {"a/*": [DENY]}, {"a/*": [READ, LIST]})
    assert not may(found, "a/b", READ)
    assert not may(found, "a/b", DENY)


def test_list_also_matches_an_exact_pattern_without_its_last_slash_only_if_the_other_is_absent() -> None:
    found = acl({"a/b": [LIST, READ]})
    assert may(found, "a/b/", LIST)
    assert not may(found, "a/b/", READ)
    assert not may(acl({"a/b": [LIST], "a/b/": [DENY]}), "a/b/", LIST)
    assert not may(acl({"a/+": [LIST]}), "a/b/", LIST)
    assert may(acl({"a/+": [LIST]}), "a/", LIST)


@pytest.mark.parametrize("path", ["A/b", "a//b", "a/b/", "a/./b", "a/b ", "a/%62", ""])
def test_a_path_is_not_normalised(path: str) -> None:
    assert not may(acl({"a/b": [READ]}), path, READ)


def test_the_strictest_limits_of_rules_with_one_pattern_hold() -> None:
    one = IssueLimits(timedelta(hours=1), None, (("arn:a",),), frozenset({"reason"}))
    other = IssueLimits(timedelta(hours=2), 3, (("arn:b",),), frozenset({"ttl"}), frozenset({"mfa_code"}))
    found = acl_of(
        [
            Policy("a", (Rule("x/*", frozenset({READ}), one, "first"),)),
            Policy("b", (Rule("x/*", frozenset({LIST}), other, "second"),)),
        ],
        NOBODY,
    )
    grant = found.find("x/y", READ)
    assert grant is not None
    assert grant.limits == IssueLimits(
        timedelta(hours=1),
        3,
        (("arn:a",), ("arn:b",)),
        frozenset({"reason", "ttl"}),
        frozenset({"mfa_code"}),
    )
    assert grant.locations == ("first", "second")


@pytest.mark.parametrize(
    ("labels", "allowed"),
    [
        ({"team": "pay"}, True),
        ({"team": "p*"}, False),
        ({"team": "+"}, False),
        ({"team": "pay/x"}, False),
        ({"team": ""}, False),
        ({}, False),
    ],
)
def test_a_label_that_would_change_a_pattern_makes_its_rule_match_nothing(
    labels: dict[str, str], allowed: bool
) -> None:
    policy = Policy("a", (Rule("x/{{identity.labels.team}}-*", frozenset({READ})),))
    found = acl_of([policy], identity_fields("ci", labels))
    assert may(found, "x/pay-1", READ) == allowed
    assert not may(found, "x/other-1", READ)
    assert [may(found, path, READ) for path in ("x/p", "x/p*-1", "x/+-1", "x/-1", "x/pay/x-1")] == [False] * 5


def test_a_label_that_looks_like_a_field_is_not_filled_again() -> None:
    policy = Policy("a", (Rule("x/{{identity.labels.a}}", frozenset({READ})),))
    found = acl_of([policy], identity_fields("ci", {"a": "{{identity.name}}"}))
    assert not may(found, "x/ci", READ)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "is empty"),
        ("a" * 513, "has 513 characters"),
        ("a*b", "has a *"),
        ("a/**", "has a *"),
        ("a+/b", "has a +"),
        ("a/+*", "has a +"),
        ("/a", "begins with a /"),
        ("a/ä", "has characters"),
        ("a/\x1b", "has characters"),
        ("a/{{identity.names}}", '"{{identity.names}}" is not a field'),
        ("a/{{identity.name_sha256}}", "is not a field"),
        ("a/{{identity.labels.}}", "is not a field"),
        ("a/{{role}}", "is not a field"),
        ("a/{{identity.name}", "has a brace"),
        ("a/{x}", "has a brace"),
        ("a/{{}}", "is not a field"),
        ("a/{{{identity.name}}}", "has a brace"),
        ("a/{{identity.name}}+", "has a +"),
    ],
)
def test_a_pattern_that_can_t_be_meant_is_a_violation(pattern: str, problem: str) -> None:
    assert [one.field for one in violations("here", pattern)] == ["here"]
    assert problem in violations("here", pattern)[0].problem


@pytest.mark.parametrize(
    "pattern", ["*", "+", "+/+", "a/+/*", "a/", "a/{{ identity.labels.a/b }}/+", "a-_.~b"]
)
def test_a_pattern_that_is_well_formed_has_no_violation(pattern: str) -> None:
    assert violations("here", pattern) == []
