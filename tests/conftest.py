"""What holds for all tests: signals reach what they start, and hypothesis repeats itself.

Hypothesis tries the same examples in each run, unless its profile `fresh` is asked for.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.signals import restore_sigint

# No deadline and no check of speed: how long an example takes is the machine's to say.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fresh", settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Make what tests start open to SIGINT, however they were started themselves."""
    restore_sigint()
