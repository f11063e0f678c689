"""A log of unexpected exceptions, for tests: what they do not expect is an error in the product."""

from __future__ import annotations


class Reports:
    """Keeps what is reported: where, and the exception."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made: list[tuple[str, BaseException]] = []

    def __call__(self, where: str, error: BaseException) -> str:
        """Take note of an exception; its number is the reference."""
        self.made.append((where, error))
        return f"report-{len(self.made)}"

    def take(self) -> list[str]:
        """Return where exceptions were met so far, and forget them: they were expected."""
        places = [where for where, _ in self.made]
        self.made.clear()
        return places

    def require_none(self) -> None:
        """Fail the test where an exception was reported."""
        for where, error in self.made:
            raise AssertionError(f"unexpected exception in {where}: {error!r}") from error
