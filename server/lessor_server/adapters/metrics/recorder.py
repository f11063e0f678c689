"""Counters and histograms of what happens, cheap enough for each call.

They are plain numbers, written on the loop's thread only. The library's own take a lock and several
microseconds for each observation; it writes the page from these.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from botocore import exceptions

from lessor_server.adapters.metrics import families
from lessor_server.adapters.metrics.families import MAX_MOUNTS, OTHER, UNKNOWN, Family
from lessor_server.engine.meter import OK

MAX_CODES: Final = 100
"""The number of AWS's codes with a label of their own; an endpoint may answer with any text."""
MAX_CODE: Final = 64
MAX_SERIES: Final = 5_000
"""The number of series of calls to AWS; beyond it new codes count as others."""
SKEW_SECONDS: Final = 10.0
"""The minimum time between comparisons of the clock with AWS's."""
NO_ANSWER: Final = "no_answer"
NETWORK_ERRORS: Final = frozenset(
    name
    for name, kind in vars(exceptions).items()
    if isinstance(kind, type) and issubclass(kind, exceptions.BotoCoreError)
)
"""The SDK's names of errors without an answer; one label for all, so that an alert misses none of them."""

Labels = tuple[str, ...]


class Histogram:
    """Counts observations in buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin at zero; ``bounds`` are the upper bounds of the buckets, ascending."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histograms:
    """The histograms of one family, by their labels."""

    def __init__(self, family: Family) -> None:
        """Begin without any, or with the only one of a family without labels."""
        self.family = family
        self.by_labels: dict[Labels, Histogram] = {}
        if not family.labels:
            self.get(())

    def get(self, labels: Labels) -> Histogram:
        """Return the histogram with these labels."""
        found = self.by_labels.get(labels)
        if found is None:
            found = self.by_labels[labels] = Histogram(self.family.buckets)
        return found


class Counts:
    """The counters of one family, by their labels."""

    def __init__(self, family: Family) -> None:
        """Begin without any."""
        self.family = family
        self.by_labels: dict[Labels, int] = {}

    def add(self, labels: Labels) -> None:
        """Count one more."""
        self.by_labels[labels] = self.by_labels.get(labels, 0) + 1


class Recorder:
    """Records what the guard, the engine, the store and the way to AWS report."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        """Compare ``wall_clock``, in seconds since the epoch, with the times of AWS's answers."""
        self._wall_clock = wall_clock
        self.issues = Histograms(families.ISSUE)
        self.phases = Histograms(families.ISSUE_PHASE)
        self.lags = Histograms(families.REVOCATION_LAG)
        self.commits = Histograms(families.STORE_COMMIT)
        self.aws_seconds = Histograms(families.AWS_CALL)
        self.handling = Histograms(families.HANDLING)
        self.aws_calls = Counts(families.AWS_CALLS)
        self.handled = Counts(families.HANDLED)
        self.clock_skew: float | None = None
        """Seconds; None before the first answer of AWS."""
        self._lag = self.lags.get(())
        self._commit = self.commits.get(())
        self._mounts: set[str] = set()
        self._codes: dict[str, str] = {}
        self._compare_at = 0.0

    @property
    def histograms(self) -> tuple[Histograms, ...]:
        """Return all histograms."""
        return (self.issues, self.phases, self.lags, self.commits, self.aws_seconds, self.handling)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """Return all counters."""
        return (self.aws_calls, self.handled)

    # --- the engine's Meter -----------------------------------------------------------------------------

    def record_issue(self, credential_type: str, outcome: str, seconds: float) -> None:
        """Record the end of an issue."""
        self.issues.get((credential_type or UNKNOWN, outcome)).observe(seconds)

    def record_phase(self, phase: str, seconds: float) -> None:
        """Record one phase of an issue."""
        self.phases.get((phase,)).observe(seconds)

    def record_revocation_lag(self, seconds: float) -> None:
        """Record the lag of a revocation."""
        self._lag.observe(max(seconds, 0.0))

    def record_commit(self, seconds: float) -> None:
        """Record the time of one commit of the store."""
        self._commit.observe(seconds)

    # --- calls ------------------------------------------------------------------------------------------

    def begin_call(
        self, service: str, method: str, _metadata: Callable[[], Mapping[str, str]]
    ) -> Callable[[str], None]:
        """Begin to measure a call; return what records its end with its status code."""
        labels = (service, method) if service else (UNKNOWN, UNKNOWN)
        time = asyncio.get_running_loop().time
        began = time()

        def end(code: str) -> None:
            self.handled.add((*labels, code))
            self.handling.get(labels).observe(time() - began)

        return end

    def begin_aws_call(self, mount: str, action: str) -> Callable[[str, str, str], None]:
        """Begin to measure a request to AWS; return what records its end."""
        time = asyncio.get_running_loop().time
        began = time()

        def end(code: str, _request_id: str, date: str) -> None:
            now = time()
            lower = action.lower()
            labels = (self._bounded_mount(mount), lower, self._bounded_code(code))
            if labels not in self.aws_calls.by_labels and len(self.aws_calls.by_labels) >= MAX_SERIES:
                labels = (OTHER, lower, OTHER)
            self.aws_calls.add(labels)
            self.aws_seconds.get((lower,)).observe(now - began)
            if date and now >= self._compare_at:
                self._compare_at = now + SKEW_SECONDS
                self._compare_clock(date)

        return end

    def keep_mounts(self, mounts: Collection[str]) -> None:
        """Drop the counters of mounts that no longer exist, so that others can have labels."""
        kept = {OTHER, *mounts}
        self._mounts &= kept
        for labels in [labels for labels in self.aws_calls.by_labels if labels[0] not in kept]:
            del self.aws_calls.by_labels[labels]

    def _bounded_mount(self, mount: str) -> str:
        """Return the mount as a label, or ``_other`` if too many mounts have labels."""
        if mount not in self._mounts:
            if len(self._mounts) >= MAX_MOUNTS:
                return OTHER
            self._mounts.add(mount)
        return mount

    def _bounded_code(self, code: str) -> str:
        """Return AWS's code as a label: lower case, and of a limited number."""
        if code == OK:
            return code
        label = self._codes.get(code)
        if label is None:
            if not code or code in NETWORK_ERRORS:
                return NO_ANSWER
            if len(self._codes) >= MAX_CODES or len(code) > MAX_CODE or not code.isascii():
                return OTHER
            label = self._codes[code] = code.lower() if code.isprintable() else OTHER
        return label

    def _compare_clock(self, date: str) -> None:
        """Compare the machine's clock with the ``Date`` of an answer, which has whole seconds."""
        try:
            then = parsedate_to_datetime(date)
            ahead = self._wall_clock() - then.timestamp() - 0.5
        except (ValueError, OverflowError, OSError):
            return  # another server may answer with any text
        if _is_plausible(then):
            self.clock_skew = ahead if abs(ahead) > 1.0 else 0.0


def _is_plausible(instant: datetime) -> bool:
    return 2000 <= instant.year < 2200
