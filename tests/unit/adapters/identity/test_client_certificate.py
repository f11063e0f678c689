"""Checks how client certificates are read, and in which authority's certificate their chain ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.certificate_chains import KEYS, ChainAuthority
from tests.support.json_web_tokens import NOW

from lessor_server.adapters.identity.client_certificate import Authorities, read_certificate
from lessor_server.domain.access.identify import CertificateNames
from lessor_server.domain.errors.base import Unauthenticated

URI = "spiffe://example.org/ns/prod/sa/web"
DAY = 86_400


def verifies(file: str, pem: bytes, now: float = NOW) -> bool:
    """Return whether a chain ends in a certificate of a file."""
    authorities = Authorities([file])
    assert authorities.problems == {}
    return authorities.verifies(file, read_certificate(pem), now)


def usage(*, signs: bool) -> x509.KeyUsage:
    """Return the usage of a key that may sign certificates, or nothing but data."""
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def test_names_are_read_by_their_types() -> None:
    found = read_certificate(ChainAuthority("ca", NOW).issue(uris=(URI, "urn:x"), dns=("a.example", URI)))
    assert found.names == CertificateNames((URI, "urn:x"), ("a.example", URI))
    assert (found.validity.not_before, found.validity.expires_at) == (NOW - DAY, NOW + DAY)


def test_a_certificate_without_names_has_none() -> None:
    assert read_certificate(ChainAuthority("ca", NOW).issue()).names == CertificateNames()


@pytest.mark.parametrize(
    "pem", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(Unauthenticated, match="can't be read"):
        read_certificate(pem)


@pytest.mark.parametrize("kind", list(KEYS))
def test_a_chain_ends_in_a_root_or_in_an_intermediate_certificate(kind: str, tmp_path: Path) -> None:
    root = ChainAuthority("root", NOW, kind)
    between = ChainAuthority("between", NOW, kind, root)
    leaf = between.issue(uris=(URI,))
    assert verifies(root.write(tmp_path), leaf)
    assert verifies(between.write(tmp_path), leaf)
    assert verifies(root.write(tmp_path), root.issue(dns=("a.example",)))
    assert not verifies(between.write(tmp_path), root.issue(uris=(URI,)))


@pytest.mark.parametrize("kind", list(KEYS))
def test_another_authority_of_the_same_name_does_not_verify(kind: str, tmp_path: Path) -> None:
    root, twin = ChainAuthority("root", NOW, kind), ChainAuthority("root", NOW, kind, variant="twin")
    file = root.write(tmp_path)
    assert not verifies(file, twin.issue(uris=(URI,)))
    assert not verifies(file, twin.issue(uris=(URI,)) + root.pem)
    assert verifies(twin.write(tmp_path, root), root.issue(uris=(URI,)))


def test_a_chain_of_another_authority_does_not_verify(tmp_path: Path) -> None:
    root, other = ChainAuthority("root", NOW), ChainAuthority("other", NOW)
    assert not verifies(root.write(tmp_path), other.issue(uris=(URI,)) + root.pem)
    chain = ChainAuthority("between", NOW, parent=root).issue()
    assert verifies(root.write(tmp_path), chain)
    assert not verifies(root.write(tmp_path), chain[: chain.index(b"-----END") + 30])


@pytest.mark.parametrize("ca", [None, False])
def test_a_leaf_is_not_an_authority(ca: bool | None, tmp_path: Path) -> None:
    """Otherwise each holder of a certificate could make certificates for any name."""
    root = ChainAuthority("root", NOW)
    holder = ChainAuthority("holder", NOW, parent=root, ca=ca)
    assert not verifies(root.write(tmp_path), holder.issue(uris=(URI,)))


@pytest.mark.parametrize("signs", [True, False])
def test_the_key_of_an_authority_must_be_for_signing_if_it_has_a_usage(signs: bool, tmp_path: Path) -> None:
    root = ChainAuthority("root", NOW, extensions=(usage(signs=signs),))
    assert verifies(root.write(tmp_path), root.issue(uris=(URI,))) is signs


def test_the_extensions_of_a_leaf_are_not_restricted(tmp_path: Path) -> None:
    root = ChainAuthority("root", NOW)
    extensions = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), usage(signs=False))
    assert verifies(root.write(tmp_path), root.issue(uris=(URI,), extensions=extensions))


def test_a_chain_is_verified_at_a_time(tmp_path: Path) -> None:
    root = ChainAuthority("root", NOW)
    file, leaf = root.write(tmp_path), root.issue(uris=(URI,))
    assert not verifies(file, leaf, NOW + DAY + 1)
    assert not verifies(file, leaf, NOW - DAY - 1)


def test_a_file_that_cannot_be_read_is_a_problem_and_verifies_nothing(tmp_path: Path) -> None:
    root = ChainAuthority("root", NOW)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"not a certificate")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "huge").write_bytes(root.pem + b"\n" * (1 << 20))
    files = [str(tmp_path / name) for name in ("pipe", "text", "empty", "huge", "none")]
    authorities = Authorities(files)
    assert list(authorities.problems) == files
    leaf = read_certificate(root.issue(uris=(URI,)))
    assert not any(authorities.verifies(file, leaf, NOW) for file in files)
