"""Texts with a NUL, which PostgreSQL cannot store (PostgreSQL, "Character Types"), are stored escaped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_MARK: Final = "\uf8ff"
"""A character for private use, which begins an escape; two of them stand for one."""
_NUL: Final = f"{_MARK}0"


def escape_text(value: T) -> T:
    """Return a value as it is stored."""
    if isinstance(value, str) and ("\0" in value or _MARK in value):
        return value.replace(_MARK, _MARK * 2).replace("\0", _NUL)  # type: ignore[return-value]
    return value


def unescape_row(row: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values of a stored row."""
    return tuple([_unescape(value) if type(value) is str and _MARK in value else value for value in row])


def _unescape(value: str) -> str:
    return _MARK.join(part.replace(_NUL, "\0") for part in value.split(_MARK * 2))
