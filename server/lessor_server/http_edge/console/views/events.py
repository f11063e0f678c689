"""Events of leases as they occur, and without JavaScript the leases that changed last."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp.web import Response, StreamResponse
from google.protobuf.message import Message

from lessor.v1 import lease_pb2 as pb
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.answers import protect
from lessor_server.http_edge.console.pages import in_order
from lessor_server.http_edge.console.problems import form_problems, page_problem
from lessor_server.http_edge.console.views.leases import complete_prefix
from lessor_server.http_edge.console.visit import Visit

KEEPALIVE_SECONDS: Final = 15.0
"""A comment is sent this often, so that no proxy closes a stream without events."""
RECENT: Final = 50
READ: Final = 1_000
"""The number of leases among which the page looks for those that changed last."""


async def show_events(visit: Visit) -> StreamResponse:
    """Show the leases that changed last; the browser adds events as they occur."""
    prefix = complete_prefix(visit.query("prefix").strip()) or f"{await visit.find_mount()}/"
    request = pb.ListLeasesRequest(prefix=prefix, page_size=READ)
    leases: list[pb.Lease] = []
    problems, status, is_partial = [], HTTPStatus.OK, False
    try:
        answer = await visit.call("LeaseService.ListLeases", request, pb.ListLeasesResponse)
        leases, is_partial = list(answer.leases), bool(answer.next_page_token)
    except CallRefused as failed:
        if failed.kind not in (ErrorKind.INVALID, ErrorKind.NOT_FOUND):
            raise
        problems, status = form_problems(failed, ("prefix",), {}), http_status(failed.kind)
    return await visit.render(
        "events.html",
        title="Events",
        status=status,
        prefix=prefix,
        leases=sorted(leases, key=in_order, reverse=True)[:RECENT],
        is_partial=is_partial,
        problems=problems,
    )


async def stream_events(visit: Visit) -> StreamResponse:
    """Send events to the browser's EventSource until it disconnects or the session ends.

    Source: WHATWG HTML, "Server-sent events".
    """
    response = StreamResponse(status=HTTPStatus.OK)
    protect(response)
    response.headers.update({"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    began = asyncio.Event()

    async def begin() -> None:
        await response.prepare(visit.request)
        await response.write(b"retry: 3000\n\n")
        began.set()

    async def send(message: Message) -> None:
        assert isinstance(message, pb.WatchLeasesResponse)
        await response.write(_frame("lease", event_of(message)))

    async def keep_alive() -> None:
        await began.wait()
        with suppress(ConnectionError):  # the browser has gone, which ends the stream too
            while True:
                await asyncio.sleep(KEEPALIVE_SECONDS)
                await response.write(b": \n\n")

    request = pb.WatchLeasesRequest(prefix=visit.query("prefix"))
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(keep_alive())
        try:
            await visit.follow("LeaseService.WatchLeases", request, begin, send)
        except CallRefused as failed:
            text = page_problem(failed).text
            if not began.is_set():
                return _refuse(failed, text)
            await response.write(_frame("end", {"text": text}))
        finally:
            keeping.cancel()
    return response


def event_of(message: pb.WatchLeasesResponse) -> dict[str, str]:
    """Return an event for the page."""
    return {
        "type": pb.WatchLeasesResponse.Type.Name(message.type),
        "lease": message.lease_id,
        "time": f"{message.time.ToDatetime():%H:%M:%S}",
        "error": message.error,
    }


def _frame(event: str, data: dict[str, str]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def _refuse(failed: CallRefused, text: str) -> Response:
    response = Response(status=http_status(failed.kind), body=text.encode())
    protect(response)
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    return response
