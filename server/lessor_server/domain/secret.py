"""A text that must never be shown: it always prints as ``***``."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Self

_HIDDEN: Final = "***"


class Secret:
    """Hold a secret text that only ``reveal`` returns.

    Not a dataclass: ``dataclasses.asdict`` would return the plain text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        """Wrap ``value``; an empty text means "no secret"."""
        self._value = value

    def reveal(self) -> str:
        """Return the text; call this only to seal it or send it to AWS or the caller."""
        return self._value

    def __bool__(self) -> bool:
        """Return whether there is a secret at all."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, so that timing reveals nothing about the text."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        """Hash the text, consistent with equality."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Hide the text; ``str`` and ``format`` do the same."""
        return _HIDDEN


@dataclass(frozen=True, slots=True)
class TokenHash:
    """The SHA-256 of a token, which recognises the token but does not reveal it."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, token: str) -> Self:
        """Return the hash of a token; a caller may send any text."""
        return cls(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())

    def matches(self, presented: str) -> bool:
        """Return whether ``presented`` is the token, in a time that reveals nothing about it."""
        return hmac.compare_digest(self.digest, TokenHash.of(presented).digest)
