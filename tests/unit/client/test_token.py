"""Checks the tokens of ``lessor token new``."""

from __future__ import annotations

import hashlib
import random
import re
import string
import zlib

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lessor.cli.main import root
from lessor.cli.token import make_token

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FORM = re.compile(r"lsr_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


class Drawn(random.Random):
    """Draws the same number always."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self.number = number

    def getrandbits(self, bits: int) -> int:
        assert bits == 256
        return self.number


def value(text: str) -> int:
    number = 0
    for letter in text:
        number = number * 62 + DIGITS.index(letter)
    return number


@given(st.integers(0, (1 << 256) - 1))
def test_a_token_holds_all_bits_drawn_and_their_checksum(number: int) -> None:
    found = FORM.fullmatch(make_token(Drawn(number)))
    assert found is not None
    assert value(found[1]) == number
    assert value(found[2]) == zlib.crc32(found[1].encode())


def test_the_smallest_and_the_largest_number_have_the_form() -> None:
    assert FORM.fullmatch(make_token(Drawn(0)))
    assert FORM.fullmatch(make_token(Drawn((1 << 256) - 1)))


def test_the_command_prints_the_token_and_the_line_of_the_access_file() -> None:
    lines = [CliRunner().invoke(root, ["token", "new"]).output.splitlines() for _ in range(2)]
    for token, line in lines:
        assert FORM.fullmatch(token)
        assert line == f'token_sha256 = ["{hashlib.sha256(token.encode()).hexdigest()}"]'
    assert lines[0] != lines[1]
