"""Checks how claims are found and matched, and when a JWT is valid."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.access.claims import (
    ABSENT,
    Validity,
    check_claims,
    claim_matches,
    claim_text,
    find_claim,
    pattern_matches,
)
from lessor_server.domain.errors.base import Unauthenticated
from tests.support.json_web_tokens import NOW, claims, issuer

NESTED = {
    "kubernetes.io": {"namespace": "prod", "pods": [{"name": "a"}, {"name": "b"}]},
    "a/b": {"m~n": "deep", "": "nameless"},
    "https://example.com/team": "blue",
    "none": None,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("/kubernetes.io/namespace", "prod"),
        ("/kubernetes.io/pods/1/name", "b"),
        ("/a~1b/m~0n", "deep"),
        ("/a~1b/", "nameless"),
        ("https://example.com/team", "blue"),
        ("/none", None),
        ("kubernetes.io/namespace", ABSENT),
        ("/kubernetes.io/pods/2/name", ABSENT),
        ("/kubernetes.io/pods/01/name", ABSENT),
        ("/kubernetes.io/pods/-1/name", ABSENT),
        ("/kubernetes.io/pods/-/name", ABSENT),
        ("/kubernetes.io/pods/" + "9" * 5000, ABSENT),
        ("/kubernetes.io/namespace/0", ABSENT),
        ("/nope/deeper/still", ABSENT),
        ("/", ABSENT),
    ],
)
def test_a_claim_is_found_by_its_name_or_by_a_json_pointer(key: str, value: object) -> None:
    assert find_claim(NESTED, key) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (2**53, str(2**53)),
        (2**53 + 1, None),
        (-(2**53) - 1, None),
        (1.0, None),
        (None, None),
        ([], None),
        ({}, None),
    ],
)
def test_a_value_is_text_a_whole_number_or_a_boolean(value: object, text: str | None) -> None:
    assert claim_text(value) == text


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("acme/*", "acme/app", True),
        ("acme/*", "acme/", False),
        ("acme/*", "acme", False),
        ("acme/*", "evil/acme/app", False),
        ("*", "", False),
        ("*", "x", True),
        ("**", "x", False),
        ("**", "xy", True),
        ("a*a", "aa", False),
        ("a*a", "aba", True),
        ("*-prod", "x-prod", True),
        ("*-prod", "-prod", False),
        ("*-prod", "x-prod\n", False),
        ("a*b*c", "axbxc", True),
        ("a*b*c", "abxc", False),
        ("a*b*c", "axbc", False),
        ("", "", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
    ],
)
def test_a_star_is_any_run_of_at_least_one_character(pattern: str, text: str, matches: bool) -> None:
    assert pattern_matches(pattern, text) is matches


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=12))
def test_patterns_match_as_the_same_regular_expression(pattern: str, text: str) -> None:
    same = re.compile(".+".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    assert pattern_matches(pattern, text) is bool(same.fullmatch(text))


def test_a_pattern_of_many_stars_takes_no_long_time() -> None:
    """A matcher that tries all ways of dividing the value would not end."""
    assert not pattern_matches("*a" * 200 + "b", "a" * 16_000)
    assert pattern_matches("*a" * 200, "a" * 16_000)


def test_a_list_matches_if_a_member_does() -> None:
    assert claim_matches("dev*", ["ops", "devs"])
    assert claim_matches("7", [7])
    assert not claim_matches("dev*", ["ops", ["devs"], {"devs": 1}, None])
    assert not claim_matches("*", [])
    assert not claim_matches("*", {"a": "b"})


BAD_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"exp": None}, "no exp"),
    ({"exp": NOW - 30}, "expired"),
    ({"exp": 0}, "expired"),
    ({"exp": str(NOW + 600)}, "exp claim is not a number"),
    ({"exp": True}, "exp claim is not a number"),
    ({"exp": 1e308}, "exp claim is not a number"),
    ({"exp": float("inf")}, "exp claim is not a number"),
    ({"exp": float("nan")}, "exp claim is not a number"),
    ({"exp": 2**33 + 1}, "exp claim is not a number"),
    ({"exp": 10**4000}, "exp claim is not a number"),
    ({"exp": [NOW + 600]}, "exp claim is not a number"),
    ({"nbf": NOW + 31}, "not valid yet"),
    ({"nbf": "soon"}, "nbf claim is not a number"),
    ({"nbf": -1}, "nbf claim is not a number"),
    ({"iat": NOW + 31}, "not valid yet"),
    ({"iat": True}, "iat claim is not a number"),
    ({"nbf": False}, "nbf claim is not a number"),
    ({"iat": {}}, "iat claim is not a number"),
    ({"aud": None}, "aud"),
    ({"aud": "other"}, "another audience: \"other\""),
    ({"aud": "Lessor"}, "another audience"),
    ({"aud": []}, "names no audience"),
    ({"aud": ["lessor", 7]}, "aud"),
    ({"aud": {"lessor": 1}}, "aud"),
    ({"aud": True}, "aud"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD_CLAIMS)
def test_a_jwt_with_a_bad_claim_is_refused_and_the_claim_named(changes: dict[str, Any], said: str) -> None:
    made = {**claims(), **changes}
    with pytest.raises(Unauthenticated, match=re.escape(said)):
        check_claims({name: value for name, value in made.items() if value is not None}, issuer(), NOW)


def test_a_null_is_not_a_time() -> None:
    """It is not the same as a claim that is absent."""
    with pytest.raises(Unauthenticated, match="nbf"):
        check_claims({**claims(), "nbf": None}, issuer(), NOW)


def test_the_leeway_is_given_on_both_sides() -> None:
    found = check_claims(claims(exp=NOW - 29, nbf=NOW + 29, iat=NOW + 29, aud=["x", "lessor"]), issuer(), NOW)
    assert found == Validity(NOW - 1, NOW + 1)
    with pytest.raises(Unauthenticated):
        check_claims(claims(exp=NOW - 1), issuer(leeway=timedelta(0)), NOW)


def test_max_age_needs_iat_and_ends_the_jwt() -> None:
    aged = issuer(max_age=timedelta(hours=1))
    assert check_claims(claims(iat=NOW - 3600, exp=NOW + 9999), aged, NOW).expires_at == NOW + 30
    assert check_claims(claims(iat=NOW, exp=NOW + 60), aged, NOW).expires_at == NOW + 90
    with pytest.raises(Unauthenticated, match="expired"):
        check_claims(claims(iat=NOW - 3630, exp=NOW + 9999), aged, NOW)
    with pytest.raises(Unauthenticated, match="no iat"):
        check_claims(claims(iat=None), aged, NOW)


def test_no_claim_is_shown_at_length() -> None:
    with pytest.raises(Unauthenticated) as caught:
        check_claims(claims(aud="s" * 5000 + "\n"), issuer(), NOW)
    assert len(caught.value.message) < 150
