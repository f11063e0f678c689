"""Starts the metrics and probes of a server, if their listener is on, and lets traces observe beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import NoReturn, Protocol

from structlog.typing import FilteringBoundLogger

import lessor
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.metrics.listener import Handler, HttpListener, HttpReply
from lessor_server.adapters.metrics.page import Pages
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.adapters.metrics.snapshot import Snapshot, Sources
from lessor_server.adapters.tls import Certificates
from lessor_server.audit_start import Auditing
from lessor_server.engine.engine import Engine
from lessor_server.engine.meter import NO_METER, AwsObserver, EndAwsCall, Meter
from lessor_server.engine.ports import Report
from lessor_server.services.call import CallObserver
from lessor_server.services.health import Health
from lessor_server.settings.parsers import Address
from lessor_server.store_start import OpenedStore


class Observers(CallObserver, AwsObserver, Protocol):
    """Observes calls and requests to AWS."""


@dataclass(frozen=True, slots=True)
class _Both:
    """Lets two observe the same."""

    first: Observers
    second: Observers

    def begin_call(
        self, service: str, method: str, metadata: Callable[[], Mapping[str, str]], /
    ) -> Callable[[str], None]:
        """Begin to observe a call."""
        ends = [one.begin_call(service, method, metadata) for one in (self.first, self.second)]

        def end(code: str) -> None:
            for one in ends:
                one(code)

        return end

    def begin_aws_call(self, mount: str, action: str) -> EndAwsCall:
        """Begin to observe a request to AWS."""
        ends = [one.begin_aws_call(mount, action) for one in (self.first, self.second)]

        def end(code: str, request_id: str, date: str) -> None:
            for one in ends:
                one(code, request_id, date)

        return end


class Measuring:
    """The metrics of a server; without an address to listen on nothing is measured."""

    def __init__(self, address: Address | None, tracer: Observers | None = None) -> None:
        """Begin without measurements; ``tracer`` observes calls too."""
        self._tracer = tracer
        self._address = address
        self._recorder = Recorder(SystemClock().wall) if address is not None else None
        self._snapshot = Snapshot(self._recorder, lessor.__version__) if self._recorder else None

    @property
    def meter(self) -> Meter:
        """Return what the engine reports to."""
        return self._recorder or NO_METER

    @property
    def calls(self) -> CallObserver | None:
        """Return what observes each call."""
        return self._observers

    @property
    def aws_calls(self) -> AwsObserver | None:
        """Return what observes each request to AWS."""
        return self._observers

    @property
    def _observers(self) -> Observers | None:
        if self._recorder and self._tracer:
            return _Both(self._recorder, self._tracer)
        return self._recorder or self._tracer

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
        self._snapshot.is_ready = lambda: not health.problem
        pages = Pages(self._recorder, self._snapshot.read)
        paths: dict[str, Handler] = {
            "/metrics": partial(_serve_metrics, pages),
            "/healthz": _serve_alive,
            "/readyz": partial(_serve_ready, health),
        }
        parts = (self._snapshot.run, self._snapshot.loop_lag.run)
        listener = HttpListener(paths, report)
        if self._address.path:  # this is a worker, whose supervisor serves the pages of all
            async with listener.listen_locally(self._address.path):
                yield parts
            return
        async with listener.listen(self._address.host, self._address.port) as address:
            logger.info("serving_metrics", address=address)
            yield parts

    def watch(
        self,
        store: OpenedStore,
        engine: Engine,
        audit: Auditing,
        count_warnings: Callable[[], Awaitable[Mapping[str, int]]],
        certificates: Certificates | None,
    ) -> None:
        """Measure these parts from now on."""
        if self._recorder is not None and self._snapshot is not None:
            store.measure_commits(self._recorder.record_commit)
            self._snapshot.watch(
                Sources(
                    store,
                    engine.read_gauges,
                    audit.statuses,
                    count_warnings,
                    lambda: certificates.expires_at if certificates is not None else None,
                )
            )


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
