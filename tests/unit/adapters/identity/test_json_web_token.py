"""Checks that JWTs are parsed strictly, and their signatures verified with keys that fit only."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from tests.support.json_web_tokens import SigningKey, claims, encoded, key_set

from lessor_server.adapters.identity.json_web_token import parse_token, verify_signature
from lessor_server.adapters.identity.key_set import VerifyingKey, read_key_set
from lessor_server.domain.errors.base import Unauthenticated

RSA = SigningKey()
SIGNATURE = encoded(b"x" * 64)


def public(key: SigningKey, **changes: Any) -> VerifyingKey:
    """Return the key as a set gives it."""
    [found] = read_key_set(key_set(key.jwk(**changes))).keys
    return found


def unsigned(header: Any, payload: Any = '{"iss":"x"}', signature: str = SIGNATURE) -> str:
    """Return a token of these parts."""
    return f"{encoded(header)}.{encoded(payload)}.{signature}"


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384", "Ed25519"])
def test_a_signature_of_each_kind_of_key_is_verified(kind: str) -> None:
    key = SigningKey(kind=kind)
    token = parse_token(key.sign(claims()))
    assert token.claims == claims()
    assert token.key_id == "one"
    verify_signature(token, public(key))
    with pytest.raises(Unauthenticated, match="signature"):
        verify_signature(token, public(SigningKey(kind=kind, number=1)))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_serves_all_rsa_algorithms_unless_it_names_one(algorithm: str) -> None:
    token = parse_token(RSA.sign(claims(), algorithm=algorithm))
    verify_signature(token, public(RSA))
    other = "RS512" if algorithm == "RS256" else "RS256"
    with pytest.raises(Unauthenticated, match="does not fit"):
        verify_signature(token, public(RSA, alg=other))


def test_changed_parts_have_a_wrong_signature() -> None:
    header, payload, signature = RSA.sign(claims()).split(".")
    for changed in (
        f"{header}.{encoded(claims(sub='root'))}.{signature}",
        f"{encoded({'alg': 'RS256', 'kid': 'one', 'x': 1})}.{payload}.{signature}",
        f"{header}.{payload}.{encoded(b'0' * 256)}",
        f"{header}.{payload}.{encoded(b'0')}",
    ):
        with pytest.raises(Unauthenticated, match="signature of the JWT is wrong"):
            verify_signature(parse_token(changed), public(RSA))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "ES512", "ES256K", "", "RS256 "])
def test_an_algorithm_without_a_public_key_fits_no_key(algorithm: str) -> None:
    token = parse_token(unsigned({"alg": algorithm, "kid": "one"}))
    with pytest.raises(Unauthenticated, match="does not fit"):
        verify_signature(token, public(RSA))


def test_an_hmac_with_the_public_key_fits_no_key() -> None:
    signed = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(claims())}"
    mac = hmac.digest(public(RSA).encoded, signed.encode(), "sha256")
    with pytest.raises(Unauthenticated, match="does not fit"):
        verify_signature(parse_token(f"{signed}.{encoded(mac)}"), public(RSA))


def test_a_key_of_another_type_does_not_verify() -> None:
    token = parse_token(SigningKey(kind="P-256").sign(claims()))
    for kind in ("RSA", "P-384", "Ed25519"):
        with pytest.raises(Unauthenticated, match="does not fit"):
            verify_signature(token, public(SigningKey(kind=kind)))


@pytest.mark.parametrize(
    ("header", "payload", "said"),
    [
        ('{"alg":"RS256","alg":"none"}', "{}", 'member "alg" occurs twice'),
        ('{"alg":"RS256"}', '{"iss":"x","sub":"a","sub":"root"}', 'member "sub" occurs twice'),
        ('{"alg":"RS256"}', '{"iss":"x","a":{"b":1,"b":2}}', 'member "b" occurs twice'),
        ('{"alg":"RS256"}', '{"iss":"x","exp":NaN}', "NaN"),
        ('{"alg":"RS256"}', '{"iss":"x","exp":-Infinity}', "Infinity"),
        ('{"alg":"RS256"}', '{"iss":"x"} {}', "not JSON"),
        ('{"alg":"RS256"}', "[" * 11_000, "not JSON"),
        ('{"alg":"RS256"}', '{"iss":' + "9" * 5000 + "}", "not JSON"),
        ('{"alg":"RS256"}', '\ufeff{"iss":"x"}', "not JSON"),
        ('{"alg":"RS256"}', b'{"iss":"\xff"}', "not JSON"),
        ('{"alg":"RS256"}', '["iss"]', "not a JSON object"),
        ('"RS256"', "{}", "not a JSON object"),
        ("null", "{}", "not a JSON object"),
        ({"alg": "RS256", "crit": []}, '{"iss":"x"}', "crit"),
        ({"alg": "RS256", "crit": ["exp"], "exp": 1}, '{"iss":"x"}', "crit"),
        ({"alg": "RS256", "b64": True}, '{"iss":"x"}', "b64"),
        ({"alg": "RS256", "b64": False}, '{"iss":"x"}', "b64"),
        ({"alg": ["RS256"]}, '{"iss":"x"}', "alg"),
        ({}, '{"iss":"x"}', "alg"),
        ({"alg": "RS256"}, "{}", "iss"),
        ({"alg": "RS256"}, '{"iss":["x"]}', "iss"),
        ({"alg": "RS256", "kid": 7}, '{"iss":"x"}', "kid"),
        ({"alg": "RS256", "kid": None}, '{"iss":"x"}', "kid"),
        ({"alg": "RS256", "kid": ["one"]}, '{"iss":"x"}', "kid"),
    ],
)
def test_a_malformed_token_is_refused(header: Any, payload: Any, said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        parse_token(unsigned(header, payload))


GOOD = unsigned({"alg": "RS256"}, '{"iss":"x"}', "AAA")


def test_the_tokens_below_are_malformed_in_one_place() -> None:
    assert parse_token(GOOD).issuer == "x"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("..", "malformed"),
        ("a.b", "three parts"),
        (f"{GOOD}.AAAA", "three parts"),
        (GOOD.removesuffix("AAA"), "empty"),
        (GOOD.replace(".", "=.", 1), "not base64url"),
        (f"{GOOD}=", "not base64url"),
        (GOOD.removesuffix("A") + "B", "canonical"),
        (GOOD.removesuffix("AA"), "not base64url"),
        (GOOD.removesuffix("A") + "+", "not base64url"),
        (GOOD.removesuffix("A") + "/", "not base64url"),
        (f"{GOOD}\n", "not base64url"),
        (f"{GOOD}ä", "not base64url"),
        (f"{GOOD}\ud800", "not base64url"),
        (GOOD + "A" * 17_000, "too long"),
    ],
)
def test_what_is_not_three_parts_of_canonical_base64url_is_refused(token: str, said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        parse_token(token)


def test_keys_in_the_header_are_ignored() -> None:
    """An attacker signs with a key of its own and sends it along."""
    own = SigningKey(number=1)
    header = {"alg": "RS256", "kid": "one", "jwk": own.jwk(), "jku": "https://evil.example/jwks"}
    with pytest.raises(Unauthenticated, match="signature"):
        verify_signature(parse_token(own.sign(claims(), header)), public(RSA))


def test_neither_errors_nor_reprs_show_a_token() -> None:
    token = RSA.sign(claims(sub="secret-subject"))
    parsed = parse_token(token)
    assert "secret-subject" not in repr(parsed)
    with pytest.raises(Unauthenticated) as caught:
        parse_token(unsigned({"alg": "x"}, '{"secret-subject":1,"secret-subject":2}' + "x" * 4000))
    assert len(caught.value.message) < 200
