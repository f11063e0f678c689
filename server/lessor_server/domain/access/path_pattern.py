"""The patterns of paths in policies, and which of several matching patterns decides.

``+`` stands for one whole segment, and ``*`` at the end for any rest. Paths and patterns are compared as they
are: nothing is normalised. Unlike there, a pattern with a wildcard is not tried on a listed path without its
last slash: ``aws/+`` says nothing about a list of ``aws/roles/``.

Source: HashiCorp Vault, "Policies", sections "Policy syntax" and "Priority matching"; OpenBao, vault/acl.go.
"""

from __future__ import annotations

import re
from typing import Final

from lessor_server.domain.errors.base import Violation, shown, too_long
from lessor_server.domain.policy import placeholders

MAX_PATTERN: Final = 512
_FIELD: Final = re.compile(r"identity\.(?:name|labels\.[A-Za-z0-9_.:/@-]{1,128})")
_FIELD_FIX: Final = "use {{identity.name}} or {{identity.labels.KEY}}"


class PathPattern:
    """A pattern; ``text`` is as written."""

    __slots__ = ("_fixed", "_open_ended", "_segments", "text")

    def __init__(self, text: str) -> None:
        """Parse a valid pattern."""
        self.text = text
        self._open_ended = text.endswith("*")
        self._fixed = text.removesuffix("*")
        segments = self._fixed.split("/")
        self._segments = segments if "+" in segments else None

    @property
    def is_exact(self) -> bool:
        """Return whether it matches one path only."""
        return not self._open_ended and self._segments is None

    @property
    def priority(self) -> tuple[int, bool, int, int, str]:
        """Return the rank of a pattern that is not exact: of those that match, the greatest decides."""
        first, plus_signs = len(self._fixed), 0
        if self._segments is not None:
            before = self._segments[: self._segments.index("+")]
            first = sum(len(segment) + 1 for segment in before)
            plus_signs = self._segments.count("+")
        return first, not self._open_ended, -plus_signs, len(self._fixed), self._fixed

    def matches(self, path: str) -> bool:
        """Return whether ``path`` matches; ``+`` also stands for the empty segment after a last slash."""
        if self._segments is None:
            return path.startswith(self._fixed) if self._open_ended else path == self._fixed
        given = path.split("/")
        if len(given) < len(self._segments) or (not self._open_ended and len(given) != len(self._segments)):
            return False
        *inner, last = self._segments
        if not all(wanted in ("+", segment) for wanted, segment in zip(inner, given, strict=False)):
            return False
        segment = given[len(inner)]
        return last in ("+", segment) or (self._open_ended and segment.startswith(last))


def violations(path: str, text: str) -> list[Violation]:
    """Return the violations of a pattern at ``path``; it may have fields such as ``{{identity.name}}``."""
    if not text:
        return [Violation(path, "is empty", "write a path such as aws/creds/reader, or * for every path")]
    if len(text) > MAX_PATTERN:
        return [too_long(path, text, MAX_PATTERN)]
    found = []
    if not text.isprintable() or not text.isascii():
        found.append(
            Violation(path, "has characters that a path can't have", "use printable ASCII characters")
        )
    if text.startswith("/"):
        found.append(Violation(path, "begins with a /, and no path does", "remove the first /"))
    if text.find("*") not in (-1, len(text) - 1):
        found.append(Violation(path, "has a * that is not its last character", "use + for one segment"))
    found += [
        Violation(path, f"{shown(f'{{{{{field}}}}}')} is not a field of a path", _FIELD_FIX)
        for field in dict.fromkeys(placeholders.fields(text))
        if not _FIELD.fullmatch(field)
    ]
    own = placeholders.fill(text, lambda _: "x")
    if "{" in own or "}" in own:
        found.append(Violation(path, "has a brace that belongs to no field", _FIELD_FIX))
    if any("+" in segment and segment != "+" for segment in own.split("/")):
        problem = "has a + beside other text in one segment"
        found.append(Violation(path, problem, "let + stand alone between slashes"))
    return found
