"""IAM's wildcards, ``*`` for any characters and ``?`` for one: faster than compiling a regular expression."""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Return whether ``pattern`` matches the whole of ``text``, including case.

    Each piece between two stars is matched at the leftmost place after the previous one; if any match exists,
    this finds one.
    """
    first, *others = pattern.split("*")
    if not others:
        return _equals(first, text)
    *inner, last = others
    if not _equals(first, text[: len(first)]):
        return False
    at = len(first)
    for piece in inner:
        found = _find(piece, text, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(text) - len(last) >= at and _equals(last, text[len(text) - len(last) :])


def _find(piece: str, text: str, start: int) -> int:
    """Return the leftmost place of ``piece`` in ``text`` from ``start`` on, or -1."""
    if "?" not in piece:
        return text.find(piece, start)
    places = range(start, len(text) - len(piece) + 1)
    return next((at for at in places if _equals(piece, text[at : at + len(piece)])), -1)


def _equals(piece: str, text: str) -> bool:
    """Return whether a piece without a star matches the whole of ``text``."""
    if "?" not in piece:
        return piece == text
    return len(piece) == len(text) and all(
        wanted in ("?", letter) for wanted, letter in zip(piece, text, strict=True)
    )
