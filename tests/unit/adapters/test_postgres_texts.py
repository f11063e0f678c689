"""Checks that any text can be stored on PostgreSQL, and comes back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lessor_server.adapters.postgres.texts import escape_text, unescape_row

ODD = st.text(st.sampled_from("a0\0\uf8ff"), max_size=12)


@given(ODD | st.text(max_size=20))
def test_a_text_comes_back_as_it_was(text: str) -> None:
    stored = escape_text(text)
    assert "\0" not in stored
    assert unescape_row((stored, 1, None, b"\0")) == (text, 1, None, b"\0")


@given(ODD, ODD)
def test_different_texts_are_stored_differently(one: str, other: str) -> None:
    assert (escape_text(one) == escape_text(other)) == (one == other)


def test_what_is_no_text_is_stored_as_it_is() -> None:
    assert [escape_text(value) for value in (1, None, b"\0")] == [1, None, b"\0"]
