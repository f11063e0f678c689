"""``lessor token``: tokens of programs. They are made on this machine, and no server is called."""

from __future__ import annotations

import hashlib
import random
import string
import zlib
from typing import Final

import click

PREFIX: Final = "lsr_"
RANDOM_BITS: Final = 256
RANDOM_DIGITS: Final = 43
"""The base62 digits of 256 bits."""
CHECKSUM_DIGITS: Final = 6
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def make_token(rng: random.Random) -> str:
    """Return a token: a prefix, 256 random bits and their CRC-32, so that scanners recognise a leaked one.

    Source: "Behind GitHub's new authentication token formats", GitHub's blog, 2021.
    """
    drawn = _base62(rng.getrandbits(RANDOM_BITS), RANDOM_DIGITS)
    return PREFIX + drawn + _base62(zlib.crc32(drawn.encode()), CHECKSUM_DIGITS)


def _base62(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits.rjust(width, _DIGITS[0])


@click.group("token")
def token() -> None:
    """Make tokens of programs, for the access file."""


@token.command("new")
def new() -> None:
    """Print a new random token, and the line of the access file that recognises it.

    This is the only copy of the token, which the program keeps secret. The line may be public.
    """
    made = make_token(random.SystemRandom())
    click.echo(made)
    click.echo(f'token_sha256 = ["{hashlib.sha256(made.encode()).hexdigest()}"]')
