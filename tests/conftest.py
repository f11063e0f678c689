"""What holds for all tests: signals reach what they start, how hypothesis searches, what runs first.

Hypothesis tries the same examples in each run, unless its profile `fresh` is asked for.
"""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

from tests.support.signals import restore_sigint

# No deadline and no check of speed: how long an example takes is the machine's to say.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fresh", settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")

LONGEST = (
    *("tests/simulation/test_deaths.py", "tests/unit/engine/test_rotation_crash.py"),
    *("tests/e2e/test_rotation.py", "tests/e2e/test_dev.py", "tests/e2e/test_kill.py"),
    *("tests/e2e/test_readme.py", "tests/e2e/test_cli_upkeep.py", "tests/e2e/test_aws_failures.py"),
)
"""Files that take half a minute each: with ``--dist loadfile`` one that begins last is waited for alone."""


def pytest_configure() -> None:
    """Make what tests start open to SIGINT, however they were started themselves."""
    restore_sigint()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first."""
    order = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(LONGEST)))


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of each later collection of garbage: there are thousands."""
    gc.collect()
    gc.freeze()
