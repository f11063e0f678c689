"""Checks the page of metrics and the probes of several workers, which are listeners of this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from lessor_server.adapters.metrics import workers
from lessor_server.adapters.metrics.families import FAMILIES
from lessor_server.adapters.metrics.listener import HttpListener, HttpReply, MetricsPortTaken
from lessor_server.adapters.metrics.page import Gauges, write_page
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.adapters.metrics.workers import WorkerPages

NUMBERS = (1, 2, 3)


@dataclass
class Workers:
    """Two workers that serve, of three; the problem of each."""

    name: str
    serving: list[int] = field(default_factory=lambda: [1, 2])
    problems: dict[int, str] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    scrapes: int = 0

    def place_of(self, number: int) -> str:
        return f"lessor-test/{os.getpid()}/{self.name}/{number}"

    async def start(self, number: int, opened: AsyncExitStack) -> None:
        recorder = Recorder(lambda: 0.0)
        for _ in range(number):
            recorder.begin_call("lessor.v1.LeaseService", "RenewLease", dict)("OK")

        async def metrics(_: Mapping[str, str]) -> HttpReply:
            self.scrapes += 1
            if number in self.silent:
                await asyncio.Event().wait()
            return HttpReply(HTTPStatus.OK, write_page(recorder, Gauges(), "")[0])

        async def ready(_: Mapping[str, str]) -> HttpReply:
            problem = self.problems.get(number, "")
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            return HttpReply(status, f"{problem or 'ok'}\n".encode())

        served = HttpListener({"/metrics": metrics, "/readyz": ready}, lambda *_: "")
        await opened.enter_async_context(served.listen_locally(self.place_of(number)))

    async def get(self, path: str, accept: str = "") -> HttpReply:
        pages = WorkerPages(NUMBERS, self.place_of, lambda: self.serving)
        return await pages.handlers()[path]({"accept": accept})


@pytest.fixture(name="w")
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Workers]:
    """Run two workers."""
    made = Workers(f"{abs(hash(request.node.nodeid))}")
    async with AsyncExitStack() as opened:
        for number in made.serving:
            await made.start(number, opened)
        yield made


async def test_each_sample_has_the_number_of_its_worker(w: Workers) -> None:
    reply = await w.get("/metrics")
    families = {one.name: one for one in parse(reply.body.decode())}
    assert {one.name.removesuffix("_total") for one in FAMILIES} <= set(families)
    up = {one.labels["worker"]: one.value for one in families["lessor_worker_up"].samples}
    assert up == {"1": 1, "2": 1, "3": 0}
    calls = [one for one in families["grpc_server_handling_seconds"].samples if one.name.endswith("_count")]
    assert {one.labels["worker"]: one.value for one in calls} == {"1": 1, "2": 2}
    assert {one.labels["worker"] for one in families["process_open_fds"].samples} == {"1", "2"}


async def test_the_page_is_also_written_as_open_metrics(w: Workers) -> None:
    reply = await w.get("/metrics", "application/openmetrics-text; version=1.0.0")
    assert reply.content_type.startswith("application/openmetrics-text")
    assert "lessor_worker_up" in {one.name for one in parse_open_metrics(reply.body.decode())}


async def test_workers_are_asked_at_most_once_a_second(w: Workers) -> None:
    pages = WorkerPages(NUMBERS, w.place_of, lambda: w.serving).handlers()
    first, second = [await pages["/metrics"]({}) for _ in range(2)]
    assert first == second
    assert w.scrapes == len(w.serving)


async def test_a_worker_that_does_not_answer_is_down_and_delays_the_page_for_a_limited_time(
    w: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ASK_SECONDS", 0.5)
    w.silent.add(2)
    up = [one for one in parse((await w.get("/metrics")).body.decode()) if one.name == "lessor_worker_up"]
    assert [one.value for one in up[0].samples] == [1, 0, 0]


@pytest.mark.parametrize(
    ("serving", "problems", "status", "text"),
    [
        ([1, 2], {}, HTTPStatus.OK, "ok\n"),
        ([2], {1: "starts"}, HTTPStatus.OK, "ok\n"),
        ([1, 2], {2: "no audit"}, HTTPStatus.SERVICE_UNAVAILABLE, "worker 2: no audit\n"),
        ([1, 3], {}, HTTPStatus.SERVICE_UNAVAILABLE, "worker 3: does not answer\n"),
        ([], {}, HTTPStatus.SERVICE_UNAVAILABLE, "no worker serves\n"),
    ],
)
async def test_all_workers_that_serve_must_be_ready(
    w: Workers, serving: list[int], problems: dict[int, str], status: HTTPStatus, text: str
) -> None:
    w.serving, w.problems = serving, problems
    reply = await w.get("/readyz")
    assert (reply.status, reply.body.decode()) == (status, text)
    assert (await w.get("/healthz")).status is HTTPStatus.OK


async def test_another_user_gets_and_gives_nothing(w: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert await workers.ask_worker(w.place_of(1), "/readyz") == workers.NO_ANSWER
    monkeypatch.setattr(workers, "require_same_user", lambda _: None)
    assert await workers.ask_worker(w.place_of(1), "/readyz") == workers.NO_ANSWER
    monkeypatch.undo()
    assert (await workers.ask_worker(w.place_of(1), "/readyz")).status is HTTPStatus.OK


async def test_a_socket_that_is_taken_is_reported(w: Workers) -> None:
    async with AsyncExitStack() as opened:
        with pytest.raises(MetricsPortTaken, match="cannot listen for metrics on the socket lessor-test/"):
            await w.start(1, opened)
