"""The places where a process can die: before and after every effect on AWS, store and audit."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Fate(Enum):
    """What happens at one effect."""

    BEFORE = "before it"
    """The process dies, and the effect has not happened."""
    AFTER = "after it"
    """The effect happens, and the process dies before the answer."""
    LOST = "done, its answer lost"
    """The effect happens; the process lives, and the call times out."""
    UNDONE = "not done and timed out"
    """The effect does not happen; the process lives, and the call times out."""


class Points:
    """Numbers the effects of a scenario and gives each its fate; counts nothing until it is opened."""

    def __init__(self, fates: Mapping[int, Fate] | None = None) -> None:
        """Give the effects with these numbers these fates."""
        self._fates = dict(fates or {})
        self._open = False
        self.names: list[str] = []

    def open(self) -> None:
        """Count effects from now on."""
        self._open = True

    def close(self) -> None:
        """Count no more: what follows is calm."""
        self._open = False

    def meet(self, name: str) -> Fate | None:
        """Count one effect and return its fate, if it has one."""
        if not self._open:
            return None
        self.names.append(name)
        return self._fates.pop(len(self.names) - 1, None)
