"""What holds for all tests."""

from __future__ import annotations

from tests.support.signals import restore_sigint


def pytest_configure() -> None:
    """Make what tests start open to SIGINT, however they were started themselves."""
    restore_sigint()
