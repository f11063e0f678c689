"""Checks numbers in base62: their digits, their width, and which numbers fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.base62 import BASE62, base62

WIDTHS = st.integers(1, 27)


@given(WIDTHS, st.data())
def test_a_number_that_fits_has_its_digits(digits: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 62**digits - 1))
    text = base62(number, digits)
    assert len(text) == digits
    assert sum(BASE62.index(digit) * 62**place for place, digit in enumerate(reversed(text))) == number


@given(WIDTHS, st.integers(0, 62**3))
def test_a_number_out_of_range_is_refused(digits: int, beyond: int) -> None:
    for number in (62**digits + beyond, -1 - beyond):
        with pytest.raises(ValueError, match="does not fit"):
            base62(number, digits)
