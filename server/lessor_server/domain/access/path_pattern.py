"""The patterns of paths in policies, and which of several matching patterns decides.

``+`` stands for one whole segment, and ``*`` at the end for any rest. Paths and patterns are compared as they
are: nothing is normalised. Unlike there, a pattern with a wildcard is not tried on a listed path without its
last slash: ``aws/+`` says nothing about a list of ``aws/roles/``.

Source: HashiCorp Vault, "Policies", sections "Policy syntax" and "Priority matching"; OpenBao, vault/acl.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import Violation, shown, too_long
from lessor_server.domain.policy import placeholders

MAX_PATTERN: Final = 512
_FIELD: Final = re.compile(r"identity\.(?:name|labels\.[A-Za-z0-9_.:/@-]{1,128})")
_FIELD_FIX: Final = "use {{identity.name}} or {{identity.labels.KEY}}"


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern; ``text`` is as written."""

    text: str

    @property
    def is_exact(self) -> bool:
        """Return whether it matches one path only."""
        return not self.text.endswith("*") and "+" not in self.text.split("/")

    @property
    def priority(self) -> tuple[int, bool, int, int, str]:
        """Return the rank of a pattern that is not exact: of those that match, the greatest decides."""
        open_ended = self.text.endswith("*")
        fixed = self.text.removesuffix("*")
        segments = fixed.split("/")
        first = len(fixed)
        if "+" in segments:
            before = segments[: segments.index("+")]
            first = sum(len(segment) + 1 for segment in before)
        return first, not open_ended, -segments.count("+"), len(fixed), fixed

    def matches(self, path: str) -> bool:
        """Return whether ``path`` matches; ``+`` also stands for the empty segment after a last slash."""
        open_ended = self.text.endswith("*")
        fixed = self.text.removesuffix("*")
        segments, given = fixed.split("/"), path.split("/")
        if "+" not in segments:
            return path.startswith(fixed) if open_ended else path == fixed
        if len(given) < len(segments) or (not open_ended and len(given) != len(segments)):
            return False
        *inner, last = segments
        if not all(wanted in ("+", segment) for wanted, segment in zip(inner, given, strict=False)):
            return False
        segment = given[len(inner)]
        return last in ("+", segment) or (open_ended and segment.startswith(last))


def violations(path: str, text: str) -> list[Violation]:
    """Return the violations of a pattern at ``path``; it may have fields such as ``{{identity.name}}``."""
    if not text:
        return [Violation(path, "is empty", "write a path such as aws/creds/reader, or * for every path")]
    if len(text) > MAX_PATTERN:
        return [too_long(path, text, MAX_PATTERN)]
    found = []
    if not text.isprintable() or not text.isascii():
        found.append(Violation(path, "has characters that no path has", "use printable ASCII characters"))
    if text.startswith("/"):
        found.append(Violation(path, "begins with a /, and no path does", "remove the first /"))
    if "*" in text[:-1]:
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
