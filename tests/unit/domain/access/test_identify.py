"""Checks which identity a certificate or the claims of a JWT match, and the names that they get."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lessor_server.domain.access.access_config import (
    AccessConfig,
    DnsMatch,
    Identity,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.identify import (
    CertificateNames,
    NameIndex,
    comes_from,
    fill_identity,
    identify_certificate,
    identify_claims,
)
from lessor_server.domain.errors.base import Unauthenticated

POD = Identity(
    "k8s/{ns}/{sa}", SpiffeMatch("spiffe://example.org/ns/{ns}/sa/{sa}"), labels={"namespace": "in {ns}"}
)
HOST = Identity("host/{host}", DnsMatch("{host}.Build.example.org"))
REPOSITORY = Identity(
    "gh/{repository}",
    JwtMatch("ci", {"repository": "acme/*", "ref": "refs/heads/main"}),
    labels={"repository": "{repository}"},
)


def by_certificate(*rules: Identity, uris: tuple[str, ...] = (), dns: tuple[str, ...] = ()) -> Any:
    """Return the name and labels of a caller with these SANs."""
    found = identify_certificate(
        AccessConfig(identities=rules), CertificateNames(uris, dns), lambda file: file != "wrong.pem"
    )
    return found.name, dict(found.labels)


def by_claims(*rules: Identity, **claims: Any) -> Any:
    """Return the name and labels of a caller with these claims."""
    found = identify_claims(AccessConfig(identities=rules), "ci", claims)
    return found.name, dict(found.labels)


def named(template: str, **values: Any) -> str:
    """Return the name that a template gives a caller with these claims."""
    found: str = by_claims(Identity(template, JwtMatch("ci")), **values)[0]
    return found


def test_the_segments_of_a_uri_san_fill_the_name_and_the_labels() -> None:
    assert by_certificate(POD, uris=("spiffe://example.org/ns/prod/sa/web",)) == (
        "k8s/prod/web", {"namespace": "in prod"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://example.org/ns/prod/sa/",
        "spiffe://example.org/ns//sa/web",
        "spiffe://example.org/ns/prod/sa/web/",
        "spiffe://example.org/ns/prod/sa/web/x",
        "spiffe://example.org/ns/prod/SA/web",
        "spiffe://EXAMPLE.org/ns/prod/sa/web",
        "spiffe://example.org.evil/ns/prod/sa/web",
        "https://example.org/ns/prod/sa/web",
        "",
    ],
)
def test_a_uri_san_matches_whole_segments_exactly(uri: str) -> None:
    with pytest.raises(Unauthenticated, match="no identity"):
        by_certificate(POD, uris=(uri,))


@pytest.mark.parametrize("segment", ["..", ".", "a%2fb", "a b", "a\x00", "ä", "x" * 129])
def test_a_segment_that_a_name_cannot_have_is_refused(segment: str) -> None:
    """It does not fall through to the next identity."""
    other = Identity("any", SpiffeMatch("spiffe://example.org/ns/{ns}/sa/{sa}"))
    with pytest.raises(Unauthenticated, match="value of"):
        by_certificate(POD, other, uris=(f"spiffe://example.org/ns/{segment}/sa/web",))


def test_more_than_one_uri_san_is_refused_for_every_identity() -> None:
    uris = ("spiffe://example.org/ns/prod/sa/web", "spiffe://example.org/other")
    with pytest.raises(Unauthenticated, match="more than one URI"):
        by_certificate(POD, HOST, uris=uris, dns=("a.build.example.org",))


def test_a_dns_san_that_looks_like_a_uri_matches_no_spiffe_id() -> None:
    with pytest.raises(Unauthenticated, match="no identity"):
        by_certificate(POD, dns=("spiffe://example.org/ns/prod/sa/web",))
    with pytest.raises(Unauthenticated, match="no identity"):
        by_certificate(HOST, uris=("a.build.example.org",))


def test_a_dns_san_is_compared_without_case_and_its_label_is_lower_case() -> None:
    assert by_certificate(HOST, dns=("A7.BUILD.example.ORG",))[0] == "host/a7"
    upper = Identity("host/{Host}", DnsMatch("{Host}.build.example.org"))
    assert by_certificate(upper, dns=("A7.build.example.org",))[0] == "host/a7"


@pytest.mark.parametrize(
    "name", [".build.example.org", "a.b.build.example.org", "build.example.org", "a.build"]
)
def test_a_placeholder_is_one_whole_label(name: str) -> None:
    with pytest.raises(Unauthenticated, match="no identity"):
        by_certificate(HOST, dns=(name,))


def test_a_wildcard_certificate_names_no_host() -> None:
    with pytest.raises(Unauthenticated, match="characters"):
        by_certificate(HOST, dns=("*.build.example.org",))


def test_two_dns_sans_that_match_differently_are_refused() -> None:
    two = ("a.build.example.org", "b.build.example.org")
    with pytest.raises(Unauthenticated, match="several DNS SANs"):
        by_certificate(HOST, dns=two)
    same = ("a.build.example.org", "A.build.example.org", "elsewhere.example.org")
    assert by_certificate(HOST, dns=same)[0] == "host/a"
    fixed = Identity("builder", DnsMatch("b.build.example.org"))
    assert by_certificate(fixed, dns=two)[0] == "builder"


def test_an_identity_whose_authority_did_not_sign_is_passed_over() -> None:
    untrusted = Identity("other/{h}", DnsMatch("{h}.build.example.org", "wrong.pem"))
    assert by_certificate(untrusted, HOST, dns=("a.build.example.org",))[0] == "host/a"
    with pytest.raises(Unauthenticated, match="no identity"):
        by_certificate(untrusted, dns=("a.build.example.org", "b.build.example.org"))


def test_the_first_identity_in_the_file_wins() -> None:
    first = Identity("main", JwtMatch("ci", {"ref": "refs/heads/*"}))
    given = {"repository": "acme/app", "ref": "refs/heads/main"}
    assert by_claims(REPOSITORY, first, **given) == ("gh/acme/app", {"repository": "acme/app"})
    assert by_claims(first, REPOSITORY, **given) == ("main", {})


def test_identities_of_other_issuers_and_kinds_are_passed_over() -> None:
    others = (Identity("a", JwtMatch("other")), POD, Identity("t", TokenMatch((b"x" * 32,))))
    with pytest.raises(Unauthenticated, match="no identity"):
        by_claims(*others, sub="x")


@pytest.mark.parametrize(
    "claims",
    [
        {"repository": "acme/app"},
        {"ref": "refs/heads/main"},
        {"repository": "evil/app", "ref": "refs/heads/main"},
        {"repository": "acme/app", "ref": "refs/heads/main2"},
        {"repository": {"acme/x": 1}, "ref": "refs/heads/main"},
        {"repository": None, "ref": "refs/heads/main"},
    ],
)
def test_a_claim_that_is_absent_or_differs_does_not_match(claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="no identity"):
        by_claims(REPOSITORY, **claims)


def test_a_claim_that_only_the_name_or_a_label_uses_must_be_there() -> None:
    label = Identity("one", JwtMatch("ci"), labels={"team": "{/groups/team}"})
    later = Identity("two", JwtMatch("ci"))
    assert by_claims(label, later, sub="x") == ("two", {})
    assert by_claims(label, later, groups={"team": "blue"}) == ("one", {"team": "blue"})


def test_booleans_and_whole_numbers_are_text_in_a_name() -> None:
    assert named("x/{run}/{ok}", run=2**53, ok=True) == f"x/{2**53}/true"


@pytest.mark.parametrize("value", [["acme/app"], {}, None, 1.5, 2**53 + 1])
def test_a_claim_that_is_not_a_single_value_fills_no_placeholder(value: object) -> None:
    fallback = Identity("any", JwtMatch("ci"))
    with pytest.raises(Unauthenticated, match='claim "sub"'):
        by_claims(Identity("x/{sub}", JwtMatch("ci")), fallback, sub=value)


@pytest.mark.parametrize(
    "value", ["", "a/../b", "..", ".", "a/.", "x" * 129, "x" * 300, "a b", "a\nb", "ä", "\ud800", "a*", "{x}"]
)
def test_a_value_that_a_name_cannot_have_is_refused(value: str) -> None:
    with pytest.raises(Unauthenticated):
        named("x/{sub}", sub=value)


def test_no_expansion_is_named_root() -> None:
    """The file allows no such template; this is the second lock."""
    with pytest.raises(Unauthenticated):
        named("{sub}", sub="root")
    with pytest.raises(Unauthenticated):
        named("x/.{sub}", sub=".")
    assert named("x/{sub}", sub="root") == "x/root"


def test_only_the_last_placeholder_has_slashes() -> None:
    assert named("x/{a}/{b}", a="1", b="2/3") == "x/1/2/3"
    with pytest.raises(Unauthenticated, match="has a /"):
        named("x/{a}/{b}", a="1/2", b="3")


def test_two_expansions_never_collide() -> None:
    assert named("x/{a}-{b}", a="1", b="2-3") == "x/1-2-3"
    with pytest.raises(Unauthenticated, match="another caller"):
        named("x/{a}-{b}", a="1-2", b="3")
    with pytest.raises(Unauthenticated, match="another caller"):
        named("x/{a}{b}", a="1", b="2")


@given(
    st.sampled_from(["x/{a}/{b}", "x/{a}-{b}", "x/{a}--{b}-", "x/{a}{b}", "x/{a}/y/{b}/z", "x/{a}.{b}.{a}"]),
    *[st.text("a-/.y", min_size=1, max_size=5) for _ in range(4)],
)
def test_different_values_give_different_names(template: str, a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d))
    try:
        names = named(template, a=a, b=b), named(template, a=c, b=d)
    except Unauthenticated:
        return
    assert names[0] != names[1]


def test_a_name_has_at_most_256_characters() -> None:
    assert len(named("x" * 126 + "/{a}/{b}", a="a", b="b" * 127)) == 256
    with pytest.raises(Unauthenticated, match="257"):
        named("x" * 126 + "/{a}/{b}", a="a", b="b" * 128)


@pytest.mark.parametrize("value", ["", "x" * 257, "a\nb", "\u202e", "\ud800"])
def test_a_label_has_1_to_256_printable_characters(value: str) -> None:
    rule = Identity("one", JwtMatch("ci"), labels={"l": "{team}"})
    with pytest.raises(Unauthenticated, match='label "l"'):
        by_claims(rule, team=value)
    assert by_claims(rule, team="zwei Wörter /.*") == ("one", {"l": "zwei Wörter /.*"})


def test_an_empty_value_is_refused_beside_literal_text() -> None:
    with pytest.raises(Unauthenticated, match="label"):
        by_claims(Identity("one", JwtMatch("ci"), labels={"l": "team-{team}"}), team="")


def test_a_placeholder_without_a_value_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="placeholder"):
        fill_identity(POD, {"ns": "prod"})


ADDRESS = ipaddress.ip_address("10.1.2.3")


@pytest.mark.parametrize(
    ("peers", "address", "inside"),
    [
        (("10.0.0.0/8",), ADDRESS, True),
        (("192.0.2.0/24", "10.1.2.3/32"), ADDRESS, True),
        (("192.0.2.0/24",), ADDRESS, False),
        (("unix",), ADDRESS, False),
        (("unix",), "unix", True),
        (("unix",), None, False),
        (("10.0.0.0/8",), "unix", False),
        (("0.0.0.0/0", "::/0"), None, False),
        (("::/0",), ADDRESS, False),
        (("2001:db8::/32",), ipaddress.ip_address("2001:db8::1"), True),
    ],
)
def test_a_call_comes_from_a_network_or_a_unix_socket(peers: Any, address: Any, inside: bool) -> None:
    places = [place if place == "unix" else ipaddress.ip_network(place) for place in peers]
    assert comes_from(places, address) is inside


@pytest.mark.parametrize(
    ("rule", "name", "possible"),
    [
        (POD, "k8s/prod/web", True),
        (POD, "k8s/prod", False),
        (POD, "k8s/prod/web/x", False),
        (POD, "k8s//web", False),
        (POD, "k8s/../web", False),
        (POD, "k8s/prod/", False),
        (HOST, "host/a", True),
        (HOST, "host/a.b", False),
        (HOST, "host/A", False),
        (REPOSITORY, "gh/acme/app", True),
        (REPOSITORY, "gh/evil/app", False),
        (REPOSITORY, "gh/", False),
        (Identity("ci", TokenMatch(())), "ci", True),
        (Identity("ci", TokenMatch(())), "ci2", False),
        (Identity("ci", TokenMatch(())), "", False),
    ],
)
def test_names_that_an_identity_could_give(rule: Identity, name: str, possible: bool) -> None:
    assert (NameIndex([rule]).find(name) is not None) is possible


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text("ab-/", min_size=1, max_size=4), min_size=2))
def test_each_name_that_is_given_is_possible(values: Mapping[str, str]) -> None:
    template = "x/{a}-{b}"
    try:
        name = named(template, **values)
    except Unauthenticated:
        return
    assert NameIndex([Identity(template, JwtMatch("ci"))]).find(name)
