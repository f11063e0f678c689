"""What a guard wrote to its log."""

from __future__ import annotations


class CallNotes:
    """A log of calls that a test reads."""

    def __init__(self) -> None:
        """Begin empty."""
        self.reports: list[tuple[str, BaseException]] = []
        self.refusals: list[str] = []

    def report(self, method: str, error: BaseException) -> str:
        """Keep an unforeseen exception; its reference is its number."""
        self.reports.append((method, error))
        return f"ref-{len(self.reports)}"

    def refused(self, reason: str) -> None:
        """Keep the reason of a refused call."""
        self.refusals.append(reason)
