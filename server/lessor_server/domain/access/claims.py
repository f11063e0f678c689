"""The claims of a JWT: how the access file names and matches them, and whether they are valid now.

Sources: RFC 7519, section 4.1 (claims), RFC 6901 (JSON pointers).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.access.access_config import JwtIssuer
from lessor_server.domain.errors.base import Unauthenticated, shown

Claims = Mapping[str, object]

MAX_WHOLE_NUMBER: Final = 2**53
"""The largest whole number that every reader of JSON reads exactly."""
MAX_TIME: Final = 2**33
"""The largest time of a claim, in seconds since the epoch: the year 2242."""
ABSENT: Final = object()
"""The value of a claim that a JWT does not have."""

_INDEX: Final = re.compile("0|[1-9][0-9]{0,5}")


def find_claim(claims: Claims, key: str) -> object:
    """Return the claim that ``key`` names, or ABSENT; a key that begins with ``/`` is a JSON pointer."""
    if not key.startswith("/"):
        return claims.get(key, ABSENT)
    value: object = claims
    for escaped in key[1:].split("/"):
        segment = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(segment, ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(segment) and int(segment) < len(value):
            value = value[int(segment)]
        else:
            return ABSENT
    return value


def claim_text(value: object) -> str | None:
    """Return a claim's value as text; None unless it is text, a boolean or a whole number up to 2^53."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() if abs(value) <= MAX_WHOLE_NUMBER:
            return str(value)
    return None


def claim_matches(pattern: str, value: object) -> bool:
    """Return whether the whole of a claim's value, or of one member of a list, matches ``pattern``."""
    members = value if isinstance(value, list) else [value]
    return any(text is not None and pattern_matches(pattern, text) for text in map(claim_text, members))


def pattern_matches(pattern: str, text: str) -> bool:
    """Return whether ``text`` matches; ``*`` is any run of at least one character.

    Each literal is searched once, from the end of the one before: the leftmost place leaves the most room.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == first
    if not text.startswith(first):
        return False
    end = len(first)
    for literal in others[:-1]:
        start = text.find(literal, end + 1)
        if start < 0:
            return False
        end = start + len(literal)
    return len(text) - len(others[-1]) > end and text.endswith(others[-1])


@dataclass(frozen=True, slots=True)
class Validity:
    """When a credential is valid, in seconds since the epoch: from ``not_before``, until ``expires_at``."""

    not_before: float = 0.0
    expires_at: float = math.inf

    def check(self, now: float) -> None:
        """Raise ``Unauthenticated`` unless ``now`` is within it."""
        if now >= self.expires_at:
            raise Unauthenticated("the credential has expired")
        if now < self.not_before:
            raise Unauthenticated("the credential is not valid yet")


def check_claims(claims: Claims, issuer: JwtIssuer, now: float) -> Validity:
    """Return when a JWT of ``issuer`` is valid, leeway included; ``max_age`` ends it as ``exp`` does.

    Raises:
        Unauthenticated: A claim is missing, malformed or not met.
    """
    _check_audience(claims, issuer)
    leeway = issuer.leeway.total_seconds()
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    if expires_at is None:
        raise Unauthenticated("the JWT has no exp claim; have it issued with an expiry")
    if issuer.max_age is not None:
        if issued_at is None:
            raise Unauthenticated("the JWT has no iat claim, which the issuer's max_age needs")
        expires_at = min(expires_at, issued_at + issuer.max_age.total_seconds())
    starts = [start for start in (_time(claims, "nbf"), issued_at) if start is not None]
    validity = Validity(max(starts, default=0.0) - leeway, expires_at + leeway)
    validity.check(now)
    return validity


def _check_audience(claims: Claims, issuer: JwtIssuer) -> None:
    audience = claims.get("aud", ABSENT)
    members = audience if isinstance(audience, list) else [audience]
    texts = [member for member in members if isinstance(member, str)]
    if len(texts) < len(members):
        raise Unauthenticated("the JWT's aud claim is missing, or is not text or a list of texts")
    if not texts:
        raise Unauthenticated("the JWT's aud claim names no audience")
    if not set(texts) & set(issuer.audiences):
        named = ", ".join(map(shown, texts[:3]))
        raise Unauthenticated(f"the JWT is for another audience: {named}")


def _time(claims: Claims, name: str) -> float | None:
    """Return a claim that is a time; None if it is absent. A boolean is not a number."""
    value = claims.get(name, ABSENT)
    if value is ABSENT:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise Unauthenticated(f"the JWT's {name} claim is not a number from 0 to 2^33")
    return float(value)
