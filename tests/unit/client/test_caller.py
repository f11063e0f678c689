"""Who the caller is, without asking the server: the same after a renewal of a JWT or a certificate."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.x509 import DNSName, UniformResourceIdentifier
from tests.support.certificates import Authority

from lessor.channel import BadConnection, Connection
from lessor.leasing.caller import caller_of


def jwt(**claims: object) -> str:
    """Return a JWT with a signature that nobody checks here."""
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"RS256"}', json.dumps(claims).encode(), b"signature")
    )


def test_another_token_is_another_caller() -> None:
    assert caller_of(Connection(token="a" * 32)) == caller_of(Connection(token="a" * 32))
    assert caller_of(Connection(token="a" * 32)) != caller_of(Connection(token="b" * 32))
    assert caller_of(Connection()) not in {caller_of(Connection(token="a" * 32))}


def test_a_new_jwt_of_the_same_subject_is_the_same_caller() -> None:
    first, later, other = (
        caller_of(Connection(token=jwt(iss="https://a", sub=sub, aud="lessor", exp=exp)))
        for sub, exp in (("x", 1), ("x", 2), ("y", 2))
    )
    assert first == later != other
    assert caller_of(Connection(token=jwt(sub="x"))) != caller_of(Connection(token=jwt(sub="y")))


@pytest.mark.parametrize("token", ["a.b.c", "a.!.c", "..", "a.W10.c"])
def test_what_only_looks_like_a_jwt_is_a_token(token: str) -> None:
    assert caller_of(Connection(token=token)) != caller_of(Connection(token=f"{token}x"))


def test_a_token_file_is_read_at_each_use(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 32)
    before = caller_of(Connection(token_file=path))
    path.write_text("b" * 32)
    assert caller_of(Connection(token_file=path)) != before


def test_a_renewed_certificate_is_the_same_caller_and_one_with_another_name_is_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "clients")

    def caller(file: str, *names: str) -> str:
        uris = [UniformResourceIdentifier(name) for name in names]
        pair = authority.sign(file, names=[DNSName("host.example"), *uris])
        return caller_of(Connection(cert_file=pair.cert, key_file=pair.key))

    first = caller("svid", "spiffe://example.org/a")
    assert caller("svid", "spiffe://example.org/a") == first
    assert caller("svid", "spiffe://example.org/b") != first
    assert caller("other", "spiffe://example.org/a") != first


@pytest.mark.parametrize(
    "content", ["", "text", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_reported(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cert.pem"
    path.write_text(content)
    with pytest.raises(BadConnection, match="name a"):
        caller_of(Connection(cert_file=path))
    with pytest.raises(BadConnection, match="name a"):
        caller_of(Connection(cert_file=tmp_path / "missing"))
