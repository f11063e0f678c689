"""Checks how the validity of a certificate is read, and that no malformed one raises."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from tests.support.certificates import Authority

from lessor.cli.validity import read_validity


@pytest.mark.parametrize("years", [1, 20, 40])
def test_the_validity_is_that_of_the_certificate(tmp_path: Path, years: int) -> None:
    """From 2050 on a time has another form (RFC 5280, section 4.1.2.5)."""
    pair = Authority(tmp_path).sign("own", life=timedelta(days=365 * years))
    known = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    found = read_validity(f"some text\n{pair.cert.read_text()}")
    assert found is not None
    assert (found.begin, found.end) == (known.not_valid_before_utc, known.not_valid_after_utc)
    assert (found.end > datetime(2050, 1, 1, tzinfo=UTC)) == (years > 24)


@given(st.binary(max_size=200))
def test_what_is_not_a_certificate_has_no_validity(content: bytes) -> None:
    body = base64.b64encode(content).decode()
    assert read_validity(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----") is None


def test_a_certificate_that_is_cut_off_has_no_validity(tmp_path: Path) -> None:
    lines = Authority(tmp_path).sign("own").cert.read_text().splitlines()
    for kept in range(1, 4):
        assert read_validity("\n".join([*lines[:kept], lines[-1]])) is None
    assert read_validity("") is None
