r"""Tags: of IAM users and of sessions, as sorted (key, value) pairs, and AWS's rules for them.

Source: "Tagging IAM resources" and "Passing session tags in AWS STS"; the characters are those of
the pattern ``[\p{L}\p{Z}\p{N}_.:/=+\-@]`` in the API references of IAM and STS.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from lessor_server.domain.errors.base import Violation, shown

Tags: TypeAlias = tuple[tuple[str, str], ...]

IAM_LIMIT: Final = 47
"""AWS allows 50 tags on a user; three are Lessor's own."""
SESSION_LIMIT: Final = 50
KEY_LIMIT: Final = 128
VALUE_LIMIT: Final = 256
RESERVED: Final = ("aws:", "lessor:")


def of(mapping: Mapping[str, str]) -> Tags:
    """Return a mapping as tags, sorted by key."""
    return tuple(sorted(mapping.items()))


def violations(field: str, tags: Tags, limit: int) -> list[Violation]:
    """Return every violation of at most ``limit`` ``tags``; paths have the form ``field["key"]``."""
    if len(tags) > limit:
        return [Violation(field, f"has {len(tags)} tags", f"give at most {limit}")]
    found = []
    for key, value in tags:
        found += _tag_violations(f"{field}[{shown(key)}]", key, value)
    found += [
        Violation(f"{field}[{shown(key)}]", f"is {shown(first)} in another case", "keep one of the two")
        for first, key in _twins(key for key, _ in tags)
    ]
    return found


def _tag_violations(path: str, key: str, value: str) -> list[Violation]:
    found = []
    if not 1 <= len(key) <= KEY_LIMIT:
        found.append(Violation(path, f"its key has {len(key)} characters", f"give 1 to {KEY_LIMIT}"))
    if len(value) > VALUE_LIMIT:
        found.append(Violation(path, f"its value has {len(value)} characters", f"give at most {VALUE_LIMIT}"))
    for part, text, limit in (("key", key, KEY_LIMIT), ("value", value, VALUE_LIMIT)):
        if len(text) <= limit and not all(_taken(letter) for letter in text):
            fix = "use letters, digits, spaces and _ . : / = + - @"
            found.append(Violation(path, f"its {part} has characters that AWS does not accept", fix))
    if key.lower().startswith(RESERVED):
        found.append(Violation(path, "begins with a reserved prefix", "use a key without aws: or lessor:"))
    return found


def _taken(letter: str) -> bool:
    return letter in "_.:/=+-@" or unicodedata.category(letter)[0] in "LZN"


def _twins(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return (first, later) for each pair of keys that differ only in case: AWS treats them as one."""
    seen: dict[str, str] = {}
    return [(seen[key.casefold()], key) for key in keys if seen.setdefault(key.casefold(), key) != key]
