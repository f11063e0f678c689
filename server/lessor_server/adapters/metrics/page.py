"""Writes the page of metrics with prometheus-client's encoders, from numbers that were gathered before."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lessor_server.adapters.metrics import families
from lessor_server.adapters.metrics.families import (
    COUNTER,
    FAMILIES,
    GAUGE,
    MAX_MOUNTS,
    MAX_ROLES,
    OTHER,
    Family,
)
from lessor_server.adapters.metrics.recorder import Histogram, Labels, Recorder
from lessor_server.domain.lease import State
from lessor_server.engine.store_types import LeaseCount

SHOWN_STATES: Final = (State.INTENT, State.ACTIVE, State.REVOKING, State.ABANDONED)
"""The states with a label: a GONE lease is history."""

KEEP_SECONDS: Final = 1.0
OPEN_METRICS: Final = "application/openmetrics-text"

Values = dict[Labels, float]


@dataclass(frozen=True, slots=True)
class Gauges:
    """The values of gauges by family and labels; a family without values is shown without samples."""

    values: Mapping[Family, Values] = field(default_factory=dict)


def count_leases(counts: Iterable[LeaseCount], mounts: Iterable[str]) -> Mapping[Family, Values]:
    """Return the numbers of leases with a bounded number of labels.

    The largest mounts and roles have labels of their own; the others are added up. A mount without leases
    counts as 0 in each state.
    """
    by_mount: dict[str, dict[str, int]] = {mount: {} for mount in mounts}
    by_role: dict[tuple[str, str], dict[str, int]] = {}
    for one in counts:
        if one.state in SHOWN_STATES:
            state = one.state.value.lower()
            of_mount = by_mount.setdefault(one.mount, {})
            of_mount[state] = of_mount.get(state, 0) + one.count
            of_role = by_role.setdefault((one.mount, one.role), {})
            of_role[state] = of_role.get(state, 0) + one.count
    shown = set(nlargest(MAX_MOUNTS, by_mount, key=lambda mount: (sum(by_mount[mount].values()), mount)))
    largest = set(nlargest(MAX_ROLES, by_role, key=lambda role: (sum(by_role[role].values()), role)))
    leases: Values = {}
    for mount, states in by_mount.items():
        label = mount if mount in shown else OTHER
        for known in SHOWN_STATES:
            state = known.value.lower()
            leases[label, state] = leases.get((label, state), 0) + states.get(state, 0)
    roles: Values = {}
    for (mount, role), states in by_role.items():
        label = mount if mount in shown else OTHER
        name = role if (mount, role) in largest and mount in shown else OTHER
        for state, number in states.items():
            roles[label, name, state] = roles.get((label, name, state), 0) + number
    return {families.LEASES: leases, families.ROLE_LEASES: roles}


def write_page(recorder: Recorder, gauges: Gauges, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type, as the ``Accept`` header of a request wants it."""
    encode, content_type = choose_encoder(accept)
    return encode(_Page(recorder, gauges)), content_type


class _Page(Collector):
    """All families as prometheus-client writes them."""

    def __init__(self, recorder: Recorder, gauges: Gauges) -> None:
        self._histograms = {one.family: one for one in recorder.histograms}
        self._counts = {one.family: one for one in recorder.counts}
        self._gauges = gauges.values

    def collect(self) -> Iterator[Metric]:
        """Yield each family, with or without samples, and those of the process."""
        for family in FAMILIES:
            if family.kind == COUNTER:
                # The loop's thread may add labels meanwhile: a list of them is taken in one step.
                yield _write_counter(family, list(self._counts[family].by_labels.items()))
            elif family.kind == GAUGE:
                yield _write_gauge(family, self._gauges.get(family, {}))
            else:
                yield _write_histograms(family, list(self._histograms[family].by_labels.items()))
        yield from ProcessCollector(registry=None).collect()


def _write_counter(family: Family, samples: Iterable[tuple[Labels, int]]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        metric.add_metric(labels, value)
    return metric


def _write_gauge(family: Family, values: Values) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _write_histograms(family: Family, samples: Iterable[tuple[Labels, Histogram]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, histogram in samples:
        total, sum_value = 0, histogram.total
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*family.buckets, float("inf")), list(histogram.counts), strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        metric.add_metric(labels, buckets, sum_value)
    return metric


class Pages:
    """Writes the page on a thread, one at a time, and keeps each kind of it for a second."""

    def __init__(self, recorder: Recorder, read_gauges: Callable[[], Gauges]) -> None:
        """Write the numbers of ``recorder`` and the gauges of ``read_gauges``."""
        self._recorder = recorder
        self._read_gauges = read_gauges
        self._lock = asyncio.Lock()
        self._kept: dict[bool, tuple[float, bytes, str]] = {}

    async def get(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, as the ``Accept`` header wants it."""
        kind, loop = OPEN_METRICS in accept, asyncio.get_running_loop()
        async with self._lock:
            at, page, content_type = self._kept.get(kind, (-math.inf, b"", ""))
            if loop.time() >= at + KEEP_SECONDS:
                page, content_type = await asyncio.to_thread(
                    write_page, self._recorder, self._read_gauges(), OPEN_METRICS if kind else ""
                )
                self._kept[kind] = (loop.time(), page, content_type)
        return page, content_type
