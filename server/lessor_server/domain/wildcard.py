"""IAM's wildcards, ``*`` for any characters and ``?`` for one, matched in time that stays small."""

from __future__ import annotations

import re


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for ``fullmatch`` that takes what ``pattern`` takes.

    Each ``*`` gives up its first match for good (an atomic group): taking the leftmost place for
    every piece finds a match whenever there is one, and a row of stars costs no backtracking.
    """
    first, *others = (re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*"))
    if not others:
        return re.compile(first, re.DOTALL)
    *inner, last = others
    middle = "".join(f"(?>.*?{piece})" for piece in inner)
    return re.compile(f"{first}{middle}.*{last}", re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Tell whether ``pattern`` takes the whole of ``text``; case counts."""
    return compiled(pattern).fullmatch(text) is not None
