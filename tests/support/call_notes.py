"""The log of a guard."""

from __future__ import annotations


class CallNotes:
    """A log of calls that a test reads."""

    def __init__(self) -> None:
        """Begin empty."""
        self.reports: list[tuple[str, BaseException]] = []
        self.refusals: list[str] = []

    def report(self, method: str, error: BaseException) -> str:
        """Record an unexpected exception; its reference is its number."""
        self.reports.append((method, error))
        return f"ref-{len(self.reports)}"

    def refused(self, reason: str) -> None:
        """Record the reason of a refused call."""
        self.refusals.append(reason)
