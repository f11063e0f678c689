"""A log of unexpected exceptions: one that a test does not expect is a bug in the product."""

from __future__ import annotations


class Reports:
    """The reports: each has a place and an exception."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made: list[tuple[str, BaseException]] = []

    def __call__(self, where: str, error: BaseException) -> str:
        """Record an exception; its number is the reference."""
        self.made.append((where, error))
        return f"report-{len(self.made)}"

    def take(self) -> list[str]:
        """Return the places of the exceptions so far, and clear them: the test expects them."""
        places = [where for where, _ in self.made]
        self.made.clear()
        return places

    def require_none(self) -> None:
        """Fail the test if an exception was reported."""
        for where, error in self.made:
            raise AssertionError(f"unexpected exception in {where}: {error!r}") from error
