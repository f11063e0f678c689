"""One page of metrics, and one answer to each probe, for several workers of this machine.

Each worker serves its own page on an abstract unix socket, to processes of the same user only. A sample on
the common page has the number of its worker as a label: a sum over processes would fall when one of them is
started again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from lessor_server.adapters.metrics.listener import Handler, HttpReply, require_same_user
from lessor_server.adapters.metrics.page import KEEP_SECONDS, OPEN_METRICS

ASK_SECONDS: Final = 3.0
"""How long a worker may take to answer."""
WORKER: Final = "worker"
UP: Final = "lessor_worker_up"
NO_ANSWER: Final = HttpReply(HTTPStatus.SERVICE_UNAVAILABLE, b"does not answer\n")


class WorkerPages:
    """Answers for all workers."""

    def __init__(
        self, numbers: Sequence[int], place_of: Callable[[int], str], serving: Callable[[], Sequence[int]]
    ) -> None:
        """Ask those of the workers ``numbers`` that ``serving`` returns, at the sockets of ``place_of``."""
        self._numbers = numbers
        self._place_of = place_of
        self._serving = serving
        self._lock = asyncio.Lock()
        self._read_at = -math.inf
        self._pages: dict[int, str] = {}
        self._merged: dict[bool, tuple[bytes, str]] = {}

    def handlers(self) -> Mapping[str, Handler]:
        """Return what serves each path."""
        return {"/metrics": self._serve_metrics, "/healthz": self._serve_alive, "/readyz": self._serve_ready}

    async def _serve_metrics(self, headers: Mapping[str, str]) -> HttpReply:
        kind, loop = OPEN_METRICS in headers.get("accept", ""), asyncio.get_running_loop()
        async with self._lock:
            if loop.time() >= self._read_at + KEEP_SECONDS:
                replies = await self._ask_all("/metrics")
                ok = {number: reply for number, reply in replies.items() if reply.status is HTTPStatus.OK}
                self._pages = {number: reply.body.decode() for number, reply in ok.items()}
                self._read_at, self._merged = loop.time(), {}
            if kind not in self._merged:
                accept = OPEN_METRICS if kind else ""
                self._merged[kind] = await asyncio.to_thread(merge_pages, self._numbers, self._pages, accept)
            body, content_type = self._merged[kind]
        return HttpReply(HTTPStatus.OK, body, content_type)

    async def _serve_alive(self, _: Mapping[str, str]) -> HttpReply:
        return HttpReply(HTTPStatus.OK, b"ok\n")

    async def _serve_ready(self, _: Mapping[str, str]) -> HttpReply:
        """Answer 200 if all workers that serve are ready: one that is being started takes no connections."""
        replies = await self._ask_all("/readyz")
        problems = [
            f"worker {number}: {reply.body.decode()}"
            for number, reply in replies.items()
            if reply.status is not HTTPStatus.OK
        ]
        if replies and not problems:
            return HttpReply(HTTPStatus.OK, b"ok\n")
        text = "".join(problems) or "no worker serves\n"
        return HttpReply(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())

    async def _ask_all(self, path: str) -> dict[int, HttpReply]:
        numbers = self._serving()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask_worker(self._place_of(number), path)) for number in numbers]
        return {number: task.result() for number, task in zip(numbers, tasks, strict=True)}


async def ask_worker(place: str, path: str) -> HttpReply:
    """Return a worker's answer, or ``NO_ANSWER``."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(f"\0{place}")
            try:
                require_same_user(writer)
                writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.transport.abort()
        return HttpReply(HTTPStatus(int(head.split()[1])), body)
    except (OSError, TimeoutError, ValueError, IndexError):
        return NO_ANSWER


def merge_pages(numbers: Sequence[int], pages: Mapping[int, str], accept: str) -> tuple[bytes, str]:
    """Return one page of the pages of workers, and its type, as an ``Accept`` header wants it."""
    encode, content_type = choose_encoder(accept)
    return encode(_Merged(numbers, pages)), content_type


class _Merged(Collector):
    """The families of all workers, each sample with the number of its worker."""

    def __init__(self, numbers: Sequence[int], pages: Mapping[int, str]) -> None:
        self._numbers = numbers
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        """Yield which workers have answered, and all families."""
        up = GaugeMetricFamily(
            UP, "Whether a worker serves, and has answered for this page.", labels=[WORKER]
        )
        for number in self._numbers:
            up.add_metric([str(number)], int(number in self._pages))
        yield up
        families: dict[str, Metric] = {}
        for number, page in sorted(self._pages.items()):
            for one in text_string_to_metric_families(page):
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                label = {WORKER: str(number)}
                family.samples += [sample._replace(labels=label | sample.labels) for sample in one.samples]
        yield from families.values()
