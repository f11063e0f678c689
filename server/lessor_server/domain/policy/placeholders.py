"""Finds the ``{{ field }}`` placeholders of a template in linear time.

A placeholder is two braces, a text without braces, two braces; the leftmost one is found first. A regular
expression that strips the spaces around a field's name would need quadratic time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

MAX_TEMPLATE: Final = 512
"""The maximum length of a template; its result has at most 256 characters."""


def split(text: str) -> list[tuple[str, str | None]]:
    """Split a template into (its own text, the field after that); the last has no field."""
    parts: list[tuple[str, str | None]] = []
    done = 0
    for start, end, field in _spans(text):
        parts.append((text[done:start], field))
        done = end
    return [*parts, (text[done:], None)]


def fields(text: str) -> list[str]:
    """Return the fields of a template, in order."""
    return [field for _, _, field in _spans(text)]


def fill(text: str, value: Callable[[str], str | None]) -> str:
    """Return a template with the value of each field; a field whose value is None stays as it is."""
    pieces = []
    done = 0
    for start, end, field in _spans(text):
        filled = value(field)
        pieces += [text[done:start], text[start:end] if filled is None else filled]
        done = end
    return "".join([*pieces, text[done:]])


def has_stray_braces(text: str) -> bool:
    """Return whether a template has double braces that belong to no placeholder.

    Two braces that become adjacent when a placeholder is removed count too.
    """
    own = "".join(own for own, _ in split(text))
    return "{{" in own or "}}" in own


def _spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the start, the end and the field of each placeholder."""
    done = 0
    while (close := text.find("}", done)) >= 0:
        # Only the last brace before the first closing one can begin a text without braces.
        opening = text.rfind("{", done, close)
        if opening > done and text[opening - 1] == "{" and text.startswith("}}", close):
            yield opening - 1, close + 2, text[opening + 1 : close].strip(" ")
            done = close + 2
        else:
            done = close + 1
