"""Starts the metrics and probes of a server, if their listener is on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.metrics.listener import Handler, HttpListener, HttpReply
from lessor_server.adapters.metrics.page import Pages
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.adapters.metrics.snapshot import Snapshot, Sources
from lessor_server.adapters.sqlite.store import SqliteStore
from lessor_server.audit_start import Auditing
from lessor_server.engine.engine import Engine
from lessor_server.engine.meter import NO_METER, AwsObserver, Meter
from lessor_server.engine.ports import Report
from lessor_server.services.call import CallObserver
from lessor_server.services.health import Health
from lessor_server.settings.parsers import Address


class Measuring:
    """The metrics of a server; without an address to listen on nothing is measured."""

    def __init__(self, address: Address | None) -> None:
        """Begin without measurements."""
        self._address = address
        self._recorder = Recorder(SystemClock().wall) if address is not None else None
        self._snapshot = Snapshot(self._recorder, version("lessor")) if self._recorder else None

    @property
    def meter(self) -> Meter:
        """Return what the engine reports to."""
        return self._recorder or NO_METER

    @property
    def calls(self) -> CallObserver | None:
        """Return what observes each call."""
        return self._recorder

    @property
    def aws_calls(self) -> AwsObserver | None:
        """Return what observes each request to AWS."""
        return self._recorder

    @asynccontextmanager
    async def listen(
        self, health: Health, report: Report, logger: FilteringBoundLogger
    ) -> AsyncIterator[tuple[Callable[[], Coroutine[object, object, NoReturn]], ...]]:
        """Serve metrics and probes while the block runs; yield the parts that must be kept running.

        Raises:
            MetricsPortTaken: The address can't be used.
        """
        if self._address is None or self._recorder is None or self._snapshot is None:
            yield ()
            return
        pages = Pages(self._recorder, self._snapshot.read)
        paths: dict[str, Handler] = {
            "/metrics": partial(_serve_metrics, pages),
            "/healthz": _serve_alive,
            "/readyz": partial(_serve_ready, health),
        }
        listener = HttpListener(paths, report)
        async with listener.listen(self._address.host, self._address.port) as address:
            logger.info("serving_metrics", address=address)
            yield (self._snapshot.run, self._snapshot.loop_lag.run)

    def watch(self, store: SqliteStore, engine: Engine, audit: Auditing) -> None:
        """Measure these parts from now on."""
        if self._recorder is not None and self._snapshot is not None:
            store.measure_commits(self._recorder.record_commit)
            self._snapshot.watch(Sources(store, engine.read_gauges, audit.statuses))


async def _serve_metrics(pages: Pages, headers: Mapping[str, str]) -> HttpReply:
    body, content_type = await pages.get(headers.get("accept", ""))
    return HttpReply(HTTPStatus.OK, body, content_type)


async def _serve_alive(_: Mapping[str, str]) -> HttpReply:
    return HttpReply(HTTPStatus.OK, b"ok\n")


async def _serve_ready(health: Health, _: Mapping[str, str]) -> HttpReply:
    problem = health.problem
    if problem:
        return HttpReply(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}\n".encode())
    return HttpReply(HTTPStatus.OK, b"ok\n")
