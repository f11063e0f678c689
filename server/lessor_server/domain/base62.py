"""Numbers in base62 of a fixed width, so that texts have the order of their numbers."""

from __future__ import annotations

from typing import Final

BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(high + low for high in BASE62 for low in BASE62)


def base62(number: int, digits: int) -> str:
    """Return a number in so many base62 digits; raises ``ValueError`` if it needs more."""
    pairs = []
    rest = number
    for _ in range((digits + 1) // 2):
        rest, pair = divmod(rest, 62 * 62)
        pairs.append(_PAIRS[pair])
    pairs.reverse()
    text = "".join(pairs)
    if rest or text[:-digits] not in ("", "0"):
        message = f"{number} does not fit {digits} base62 digits"
        raise ValueError(message)
    return text[-digits:]
