"""A text that must never be shown: it prints as ``***`` wherever it turns up by mistake."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Self

_HIDDEN: Final = "***"


class Secret:
    """Hold a secret text, so that only ``reveal`` gives it out.

    Not a dataclass: ``dataclasses.asdict`` would walk into one and hand out the bare text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        """Wrap ``value``; the empty text stands for "no secret"."""
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; call this only where it is sealed or sent to AWS."""
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
        """Hash the text, in step with equality."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Hide the text; ``str`` and ``format`` do the same."""
        return _HIDDEN


@dataclass(frozen=True, slots=True)
class TokenHash:
    """The SHA-256 of a token: enough to recognise the token, and nothing that gives it out."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, token: str) -> Self:
        """Return the hash of a token; what a caller sends may be any text."""
        return cls(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())

    def matches(self, presented: str) -> bool:
        """Return whether ``presented`` is the token, in a time that reveals nothing about it."""
        return hmac.compare_digest(self.digest, TokenHash.of(presented).digest)
