"""Checks the shapes of names, labels and patterns of certificates, and which names clash."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.access import names
from lessor_server.domain.access.access_config import Identity, JwtMatch
from lessor_server.domain.access.identify import find_name_values
from lessor_server.domain.access.name_template import NameTemplate, parse_template
from lessor_server.domain.errors.base import Violation

NAMES = ["a", "a/", "a/b", "a/{x}", "a/b/{x}", "b/{x}", "a/b/c", "ab", "a/{x}/c", "b"]


def problems(found: list[Violation]) -> list[str]:
    return [one.problem for one in found]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("ci", (("ci", None),)),
        ("{x}", (("", "x"),)),
        ("a/{x}/b/{y}", (("a/", "x"), ("/b/", "y"))),
        ("a{x}{y}b", (("a", "x"), ("", "y"), ("b", None))),
        ("gh/{/kubernetes.io/ns}", (("gh/", "/kubernetes.io/ns"),)),
    ],
)
def test_a_template_is_parsed_into_texts_and_placeholders(
    text: str, parts: tuple[tuple[str, str | None], ...]
) -> None:
    found = parse_template(text)
    assert found == NameTemplate(parts)
    assert "".join(own + (f"{{{name}}}" if name else "") for own, name in found.parts) == text
    assert found.head == text.partition("{")[0]


@pytest.mark.parametrize("text", ["{", "}", "a{x", "ax}", "{}", "a/{x}{", "{{x}}", "{a{b}}", "{x}}", "}{x}"])
def test_braces_that_make_no_placeholder_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has a (brace|placeholder)"):
        parse_template(text)


@given(st.text(alphabet="ab{}/"))
def test_a_parsed_template_has_the_text_that_it_was_parsed_from(text: str) -> None:
    try:
        found = parse_template(text)
    except ValueError:
        return
    assert "".join(own + (f"{{{name}}}" if name else "") for own, name in found.parts) == text
    assert not any(set("{}") & set(own + (name or "")) for own, name in found.parts)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("root", "is reserved"),
        ("a" * 257, "has 257 characters"),
        ("a b", "has characters"),
        ("ä", "has characters"),
        ("a\n", "has characters"),
        ("a//b", "empty segment"),
        ("/a", "empty segment"),
        ("a/", "empty segment"),
        ("a/../b", "one of . or .."),
        (".", "one of . or .."),
        ("{ns}", "does not begin"),
        ("k8s{ns}", "does not begin"),
        ("k8s-{ns}/x", "does not begin"),
        ("k8s/{a}{b}", "two placeholders"),
        ("k8s/{", "has a brace"),
        ("k8s/{}", "placeholder without a name"),
    ],
)
def test_a_name_that_no_caller_may_have_is_a_violation(text: str, problem: str) -> None:
    found = problems(names.identity_name_violations("name", text))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "text", ["ci", "roots", "a" * 256, "k8s/{ns}/{sa}", "h/{a}/b{c}d", "h/{a}.{b}", "a@b:c,d=e+f", "..."]
)
def test_a_name_that_is_well_formed_has_no_violation(text: str) -> None:
    assert names.identity_name_violations("name", text) == []


@given(
    first=st.text("ab-.", min_size=1, max_size=64).filter(lambda text: text not in (".", "..")),
    last=st.lists(st.text("ab-", min_size=1, max_size=8), min_size=1, max_size=8).map("/".join),
)
def test_a_name_says_which_values_it_was_made_of(first: str, last: str) -> None:
    """So different values never give one name."""
    template = "k8s/{ns}/x-{sa}-y"
    assert names.identity_name_violations("", template) == []
    assert find_name_values(Identity(template, JwtMatch("ci")), f"k8s/{first}/x-{last}-y") == {
        "ns": first,
        "sa": last,
    }


@pytest.mark.parametrize(
    ("template", "name", "values"),
    [
        ("ci", "ci", {}),
        ("ci", "cj", None),
        ("k8s/{ns}/{sa}", "k8s/prod/app", {"ns": "prod", "sa": "app"}),
        ("k8s/{ns}/{sa}", "k8s/prod/app/x", {"ns": "prod", "sa": "app/x"}),
        ("k8s/{ns}/{sa}", "k8s/prod", None),
        ("k8s/{ns}/{sa}", "k8s//app", None),
        ("k8s/{ns}", "k8s/", None),
        ("h/{a}.{b}", "h/x.y.z", {"a": "x", "b": "y.z"}),
        ("h/{a}--{b}-c", "h/x--y-c-c", {"a": "x", "b": "y-c"}),
        ("h/{a}--{b}-c", "h/x--y-d", None),
        ("h/{a}--{b}-c", "h/x-y-c", None),
        ("h/{a}--{b}-c", "h/x---c", None),
        ("h/{a}/{b}", "h/" + "x" * 128 + "/y", {"a": "x" * 128, "b": "y"}),
        ("h/{a}/{b}", "h/" + "x" * 129 + "/y", None),
        ("k8s/{ns}", "k8s/a/../b", None),
        ("k8s/{ns}", "k8s/a b", None),
        ("k8s/{ns}", "k8s/a\n", None),
        ("k.s/{ns}", "kxs/a", None),
        ("a/{x}/{x}", "a/b/b", {"x": "b"}),
        ("a/{x}/{x}", "a/b/c", None),
        ("k8s/{ns}", "k8s/" + "a" * 253, None),
    ],
)
def test_the_values_that_give_a_name_are_found(
    template: str, name: str, values: dict[str, str] | None
) -> None:
    assert find_name_values(Identity(template, JwtMatch("ci")), name) == values


@pytest.mark.parametrize(
    ("given_names", "clashes"),
    [
        (["ci", "cd", "ci-2"], []),
        (["ci", "x", "ci"], [(2, 0)]),
        (["k8s/{ns}", "k9s/{ns}", "k8/{x}"], []),
        (["k8s/{ns}", "k8s/{sa}"], [(1, 0)]),
        (["k8s/{ns}/{sa}", "k8s/prod/{sa}"], [(1, 0)]),
        (["k8s/prod/{sa}", "k8s/{ns}/{sa}"], [(0, 1)]),
        (["k8s/admin", "k8s/{ns}"], [(0, 1)]),
        (["k8s/{ns}", "k8s/admin"], [(1, 0)]),
        (["k8s", "k8s/{ns}"], [(1, 0)]),
        (["k8s/{ns}", "{broken", "", "{x}"], []),
    ],
)
def test_names_that_could_be_each_other_s_clash(
    given_names: list[str], clashes: list[tuple[int, int]]
) -> None:
    assert list(names.clashing_names(given_names)) == clashes


@given(st.lists(st.sampled_from(NAMES), max_size=5))
def test_clashes_are_those_of_each_pair(given_names: list[str]) -> None:
    """Compared with the rule as it is written, for two names at a time."""

    def clash(one: str, other: str) -> bool:
        if "{" not in one and "{" not in other:
            return one == other
        texts = [(name.partition("{")[0], "{" in name) for name in (one, other)]
        return any(
            wild and (other_text.startswith(text) or text.startswith(other_text))
            for (text, wild), (other_text, _) in (texts, texts[::-1])
        )

    pairs = itertools.combinations(given_names, 2)
    assert bool(list(names.clashing_names(given_names))) == any(clash(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("https://example.org/a", "does not begin"),
        ("spiffe:/example.org", "does not begin"),
        ("SPIFFE://example.org", "does not begin"),
        ("spiffe:///a", "trust domain"),
        ("spiffe://Example.org/a", "trust domain"),
        ("spiffe://{td}/a", "trust domain"),
        ("spiffe://user@example.org/a", "trust domain"),
        ("spiffe://example.org:443/a", "trust domain"),
        ("spiffe://example.org/", "whole one"),
        ("spiffe://example.org/a//b", "whole one"),
        ("spiffe://example.org/a/..", "whole one"),
        ("spiffe://example.org/a%20b", "whole one"),
        ("spiffe://example.org/*", "whole one"),
        ("spiffe://example.org/x{a}", "whole one"),
        ("spiffe://example.org/{a}{b}", "whole one"),
        ("spiffe://example.org/{}", "whole one"),
        ("spiffe://example.org/{a", "whole one"),
        ("spiffe://example.org/{a}/{a}", 'has "{a}" twice'),
        ("spiffe://example.org/" + "a" * 2048, "has 2069 characters"),
    ],
)
def test_a_pattern_that_no_spiffe_id_matches_is_a_violation(text: str, problem: str) -> None:
    found = problems(names.spiffe_violations("spiffe_id", text))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "whole one"),
        ("a..b", "whole one"),
        (".a", "whole one"),
        ("*.example.org", "whole one"),
        ("x{a}.org", "whole one"),
        ("a b.org", "whole one"),
        ("-a.org", "whole one"),
        ("a" * 64 + ".org", "whole one"),
        ("{a}.{a}.org", 'has "{a}" twice'),
        ("a." * 127, "has 254 characters"),
    ],
)
def test_a_pattern_that_no_host_matches_is_a_violation(text: str, problem: str) -> None:
    found = problems(names.host_violations("dns_name", text))
    assert len(found) == 1
    assert problem in found[0]


def test_patterns_that_are_well_formed_have_no_violation() -> None:
    for text in ("spiffe://example.org", "spiffe://a.b/ns/{ns}/sa/{sa-1}", "spiffe://a/B_c-d.e"):
        assert names.spiffe_violations("", text) == []
    for text in ("{host}.build.example.org", "a", "A-b.{x}.c_d"):
        assert names.host_violations("", text) == []


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("sub", True),
        ("https://example.org/claim", True),
        ("/kubernetes.io/namespace", True),
        ("/a~1b/~0c", True),
        ("/", True),
        ("", False),
        ("/a~", False),
        ("/a~2", False),
        ("a\nb", False),
    ],
)
def test_the_name_of_a_claim_is_text_or_a_json_pointer(name: str, fine: bool) -> None:
    assert (names.claim_violations("", name) == []) == fine


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ("a", True),
        ("{ns} x", True),
        ("ü", True),
        ("", False),
        ("a\x7f", False),
        ("{", False),
        ("a" * 257, False),
    ],
)
def test_a_label_has_1_to_256_printable_characters(value: str, fine: bool) -> None:
    assert (names.label_violations("", value) == []) == fine


def test_placeholders_that_a_credential_lacks_are_named_once_with_those_that_it_has() -> None:
    found = names.unknown_placeholders("name", "a/{x}/{y}/{x}", ("y", "z"))
    assert [(one.problem, one.fix) for one in found] == [
        ('has "{x}", which its credential does not have', "use {y} or {z}")
    ]
    assert names.unknown_placeholders("name", "a/{x", ()) == []
