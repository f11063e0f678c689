"""The journal of a run. Its hash shows that a seed replays; it is printed for a broken invariant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

ALL = "*"
"""The subject of what concerns every lease: starts, kills, pauses, clocks, outages."""


class Journal:
    """Lines of (instant, subject, text); a subject is a lease's random part, ``ALL`` or empty."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take instants from ``now``, in seconds."""
        self._now = now
        self.lines: list[tuple[float, str, str]] = []

    def note(self, text: str, subject: str = "") -> None:
        """Add a line."""
        self.lines.append((self._now(), subject, text))

    def digest(self) -> str:
        """Return a digest of all lines."""
        text = "\n".join(f"{at:.6f} {subject} {line}" for at, subject, line in self.lines)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def story(self, subject: str, limit: int = 40) -> str:
        """Return the last ``limit`` lines about one lease and about everything."""
        lines = [line for line in self.lines if line[1] in (subject, ALL)] if subject else self.lines
        return "\n".join(f"  {at:10.3f}  {line}" for at, _, line in lines[-limit:])


def suffix(name: str) -> str:
    """Return the random part of a lease's id or of its user's name, by which both are one subject."""
    return name[-24:]
