"""Login tokens: what a caller gets in exchange for its credential, and presents instead of it.

A token is ``lst_``, 43 base62 digits of 256 random bits and their CRC-32 in 6 digits, so that secret scanners
recognise a leaked one. Only its SHA-256 is stored.

Source of the form: "Behind GitHub's new authentication token formats", GitHub's blog, 2021.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from lessor_server.domain.base62 import base62
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.secret import Secret, TokenHash

DEFAULT_TTL: Final = timedelta(hours=1)
"""The life of a token for which its caller asks none."""
DEFAULT_MAX_TTL: Final = timedelta(hours=24)
"""The longest life of a token, renewals included, of an identity without ``token_max_ttl``."""
MAX_MAX_TTL: Final = timedelta(days=30)
"""The longest life that ``token_max_ttl`` may allow."""
MAX_LIVE_TOKENS: Final = 1_000
"""The maximum number of live tokens of one identity."""
MAX_DEPTH: Final = 8
"""The maximum number of ancestors of a token: each read of it reads them too."""

PREFIX: Final = "lst_"
TOKEN_BITS, ACCESSOR_BITS = 256, 142
_RANDOM_DIGITS, _CHECKSUM_DIGITS, _ACCESSOR_DIGITS = 43, 6, 24
_FORM: Final = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM_DIGITS}}})([0-9A-Za-z]{{{_CHECKSUM_DIGITS}}})")

ClaimTexts = str | tuple[str, ...] | None
"""What is kept of a claim: its text, the texts of a list, or None if it was absent or had no text."""


@dataclass(frozen=True, slots=True)
class KeptToken:
    """The root token or the fixed token that was exchanged for a login token, by its SHA-256 in hex."""

    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeptJwt:
    """What is kept of the JWT that was exchanged for a login token: enough to judge it by a new access file.

    ``issuer`` is its ``iss``. ``claims`` are those that the access file named at the login, also
    absent ones, and no others.
    """

    issuer: str
    algorithm: str
    audiences: tuple[str, ...]
    claims: Mapping[str, ClaimTexts] = field(repr=False, hash=False)


KeptCredential = KeptToken | KeptJwt


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A login token; instants are microseconds since the epoch by the store's clock.

    ``digest`` is the SHA-256 of the token in hex, and ``parent`` that of the token that created it, empty if
    another credential did. ``accessor`` names it in records; nobody can call with that. ``identity`` is the
    name of its caller. ``ttl`` is the life that it was created with. It never ends after ``max_expires_us``.
    """

    digest: str = field(repr=False)
    accessor: str
    identity: str
    credential: KeptCredential = field(repr=False)
    created_us: int
    expires_us: int
    max_expires_us: int
    ttl: timedelta
    renewed_us: int = 0
    renewable: bool = True
    parent: str = field(default="", repr=False)
    depth: int = 0
    """The number of its ancestors."""


@dataclass(frozen=True, slots=True)
class LoginTerms:
    """What a login token may be: what is kept of the credential, and the longest life."""

    credential: KeptCredential
    max_ttl: timedelta = DEFAULT_MAX_TTL


@dataclass(frozen=True, slots=True)
class NewLoginToken:
    """A token that was created just now, with its text, which nobody can read again."""

    text: Secret
    token: LoginToken


def token_of(bits: int) -> Secret:
    """Return the text of a token from ``TOKEN_BITS`` random bits."""
    drawn = base62(bits, _RANDOM_DIGITS)
    return Secret(PREFIX + drawn + _checksum(drawn))


def accessor_of(bits: int) -> str:
    """Return an accessor from ``ACCESSOR_BITS`` random bits."""
    return base62(bits, _ACCESSOR_DIGITS)


def is_login_token(text: str) -> bool:
    """Return whether a text has the form of a login token: no other is looked up in the store."""
    found = _FORM.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def login_digest(text: str) -> str:
    """Return the SHA-256 of a token in hex."""
    return TokenHash.of(text).digest.hex()


def renew_token(token: LoginToken, now_us: int, increment: timedelta | None) -> LoginToken:
    """Return the token with a new expiry: now and ``increment``, at most its maximum.

    None or zero stands for its own ttl. It can end sooner than before, as a caller may want.
    """
    wanted_us = now_us + (increment or token.ttl) // MICROSECOND
    return replace(token, expires_us=min(wanted_us, token.max_expires_us), renewed_us=now_us)


def _checksum(drawn: str) -> str:
    return base62(zlib.crc32(drawn.encode()), _CHECKSUM_DIGITS)
