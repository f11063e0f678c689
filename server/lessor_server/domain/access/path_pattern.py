"""The patterns of paths in policies, and which of several matching patterns decides.

``+`` stands for one whole segment, and ``*`` at the end for any rest. Paths and patterns are compared as they
are: nothing is normalised.

Source: HashiCorp Vault, "Policies", sections "Policy syntax" and "Priority matching"; OpenBao, vault/acl.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import Violation, too_long

MAX_PATTERN: Final = 512


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
    """Return the violations of a pattern at ``path``."""
    if not text:
        return [Violation(path, "is empty", "write a path such as aws/creds/reader, or * for every path")]
    if len(text) > MAX_PATTERN:
        return [too_long(path, text, MAX_PATTERN)]
    found = []
    if not text.isprintable() or not text.isascii():
        found.append(Violation(path, "has characters that no path has", "use printable ASCII characters"))
    if "*" in text[:-1]:
        found.append(Violation(path, "has a * that is not its last character", "use + for one segment"))
    if any("+" in segment and segment != "+" for segment in text.split("/")):
        problem = "has a + beside other text in one segment"
        found.append(Violation(path, problem, "let + stand alone between slashes"))
    return found
