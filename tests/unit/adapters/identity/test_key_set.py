"""Checks which keys of a JWKS document are used, and which of them verifies a JWT."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.json_web_tokens import SigningKey, encoded, key_set

from lessor_server.adapters.identity.key_set import KeySetUnusable, VerifyingKey, read_key_set
from lessor_server.adapters.identity.strict_json import read_base64url

RSA = SigningKey("rsa")
P256 = SigningKey("p256", "P-256")
HUGE = encoded(b"\xff" * 1025)


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("RSA", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("P-256", {"ES256"}),
        ("P-384", {"ES384"}),
        ("Ed25519", {"EdDSA"}),
    ],
)
def test_a_key_serves_the_algorithms_of_its_type(kind: str, algorithms: set[str]) -> None:
    [key] = read_key_set(key_set(SigningKey("k", kind))).keys
    assert key.key_id == "k"
    assert key.algorithms == algorithms


@pytest.mark.parametrize(
    "member",
    [
        SigningKey(kind="RSA-1024").jwk(),
        SigningKey(kind="P-521").jwk(),
        SigningKey(kind="Ed448").jwk(),
        RSA.private_jwk(),
        SigningKey(kind="P-256").private_jwk(),
        {"kty": "oct", "k": encoded(b"x" * 32), "kid": "one", "alg": "HS256"},
        RSA.jwk(use="enc"),
        RSA.jwk(key_ops=["encrypt"]),
        RSA.jwk(key_ops="verify"),
        RSA.jwk(alg="HS256"),
        RSA.jwk(alg="ES256"),
        RSA.jwk(alg=["RS256"]),
        RSA.jwk(kid=7),
        RSA.jwk(n=HUGE),
        RSA.jwk(e=encoded(b"\x01" * 200)),
        RSA.jwk(e=encoded(b"\x02")),
        RSA.jwk(n=None),
        RSA.jwk(n="not base64url!"),
        RSA.jwk(kty="EC"),
        P256.jwk(crv="P-384"),
        P256.jwk(crv=["P-256"]),
        P256.jwk(x=encoded(b"\x01" * 32)),
        P256.jwk(x="AA" + P256.jwk()["x"]),
        P256.jwk(x=encoded(b"\0" + read_base64url(P256.jwk()["x"]))),
        SigningKey(kind="Ed25519").jwk(x=encoded(b"\x01" * 33)),
        "key",
        None,
        [],
    ],
)
def test_a_key_that_cannot_be_used_is_left_out(member: Any) -> None:
    """The others of its set stay."""
    found = read_key_set(key_set(member, P256) if not isinstance(member, str | None) else _with(member))
    assert [key.key_id for key in found.keys] == ["p256"]
    assert found.find(None, "ES256") is None


def _with(member: object) -> bytes:
    return json.dumps({"keys": [member, P256.jwk()]}).encode()


def test_a_key_may_be_for_verification_among_others() -> None:
    assert read_key_set(key_set(RSA.jwk(use=None, key_ops=["sign", "verify"]))).keys


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "malformed"),
        (b"<html>", "malformed"),
        (b"[]", "not a JSON object"),
        (b'{"keys":{}}', 'no list "keys"'),
        (b"{}", 'no list "keys"'),
        (b'{"keys":[],"keys":[]}', "twice"),
        (b"\xff", "malformed"),
        (b'{"keys":[' + b",".join([b"1"] * 10_000) + b"]}", "10000 keys"),
        (key_set(*[P256] * 101), "101 keys"),
    ],
)
def test_what_is_not_a_set_of_at_most_100_keys_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(KeySetUnusable, match=said):
        read_key_set(content)


def found(key_id: str | None, algorithm: str, *keys: Any) -> VerifyingKey | None:
    """Return what a set of ``keys`` finds."""
    return read_key_set(key_set(*keys)).find(key_id, algorithm)


def test_a_key_is_found_by_its_id_and_algorithm() -> None:
    assert found("p256", "ES256", RSA, P256)
    assert found("p256", "RS256", RSA, P256) is None
    assert found("P256", "ES256", RSA, P256) is None
    assert found("", "ES256", P256) is None


def test_one_id_of_several_keys_serves_only_if_one_fits() -> None:
    twin = SigningKey("twin", number=1)
    assert found("twin", "ES256", twin, P256.jwk(kid="twin"))
    assert found("twin", "RS256", twin, RSA.jwk(kid="twin")) is None
    assert found("twin", "RS256", twin.jwk(alg="RS256"), RSA.jwk(kid="twin", alg="RS512"))


def test_without_an_id_only_a_set_of_one_key_serves() -> None:
    assert found(None, "RS256", RSA)
    assert found(None, "RS256", SigningKey(None))
    assert found(None, "RS256", RSA, P256) is None
    assert found(None, "RS256", RSA, RSA.jwk(use="enc")) is None
    assert found("one", "RS256", SigningKey(None)) is None


def test_equal_keys_are_those_that_verify_the_same() -> None:
    [before], [after] = read_key_set(key_set(RSA)).keys, read_key_set(key_set(RSA.jwk(x5t="x"))).keys
    assert before == after
    [changed] = read_key_set(key_set(SigningKey("rsa", number=1))).keys
    assert before != changed
