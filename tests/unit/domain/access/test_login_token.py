"""Checks the form of login tokens."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from lessor_server.domain.access.login_token import (
    ACCESSOR_BITS,
    TOKEN_BITS,
    accessor_of,
    is_login_token,
    login_digest,
    renew_token,
    token_of,
)
from tests.support.login_tokens import HOUR_US, login_token

TEXT = token_of(random.Random(1).getrandbits(TOKEN_BITS)).reveal()


def test_a_token_has_a_prefix_its_bits_and_a_checksum() -> None:
    assert len(TEXT) == len("lst_") + 43 + 6
    assert is_login_token(TEXT)
    assert is_login_token(token_of(0).reveal())
    assert is_login_token(token_of(2**256 - 1).reveal())
    assert len(token_of(2**256 - 1).reveal()) == len(TEXT)
    assert len(accessor_of(2**ACCESSOR_BITS - 1)) == len(accessor_of(0)) == 24


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lst_",
        TEXT[:-1],
        TEXT + "0",
        TEXT + "\n",
        TEXT.replace("lst_", "lsr_"),
        TEXT[:10] + ("A" if TEXT[10] != "A" else "B") + TEXT[11:],
        TEXT[:-1] + ("A" if TEXT[-1] != "A" else "B"),
        "lst_" + "\u0661" * 49,
        "lst_" + "0" * 1_000_000,
    ],
)
def test_another_text_is_not_a_token(text: str) -> None:
    """So it costs the store nothing."""
    assert not is_login_token(text)


def test_different_bits_are_different_tokens() -> None:
    rng = random.Random(2)
    texts = {token_of(rng.getrandbits(TOKEN_BITS)).reveal() for _ in range(1000)}
    assert len(texts) == len({login_digest(text) for text in texts}) == 1000


def test_neither_the_token_nor_its_digest_is_shown() -> None:
    token = login_token(0, 0)
    assert token.digest not in repr(token)
    assert TEXT not in repr(token_of(1))


@pytest.mark.parametrize(
    ("increment", "expires_us"),
    [
        (None, 2 * HOUR_US),
        (timedelta(0), 2 * HOUR_US),
        (timedelta(seconds=1), HOUR_US + 1_000_000),
        (timedelta(hours=23), 24 * HOUR_US),
        (timedelta(hours=24), 24 * HOUR_US),
        (timedelta(days=3650), 24 * HOUR_US),
    ],
)
def test_a_renewal_counts_from_now_up_to_the_maximum(increment: timedelta | None, expires_us: int) -> None:
    renewed = renew_token(login_token(0, 0), HOUR_US, increment)
    assert (renewed.expires_us, renewed.renewed_us) == (expires_us, HOUR_US)
