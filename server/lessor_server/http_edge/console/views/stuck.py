"""Revocations that fail again and again, and what each of them waits for."""

from __future__ import annotations

from typing import Final

from aiohttp.web import StreamResponse

from lessor.v1 import lease_pb2 as pb
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.visit import Visit

MAX_READ: Final = 2_000
"""The number of leases being revoked that are read for one page, of each engine."""
MAX_ENGINES: Final = 50
"""The number of engines that are read for one page."""
MAX_SHOWN: Final = 200
"""The number of leases in each list of the page."""
_PAGE: Final = 1_000


async def show_stuck(visit: Visit) -> StreamResponse:
    """List the leases whose revocation is stuck, or waits for another attempt."""
    stuck: list[pb.Lease] = []
    waiting: list[pb.Lease] = []
    mounts = await visit.list_mount_names()
    is_partial = len(mounts) > MAX_ENGINES
    for mount in mounts[:MAX_ENGINES]:
        found, more = await _list_revoking(visit, f"{mount}/")
        is_partial = is_partial or more
        stuck += [one for one in found if one.stuck]
        waiting += [one for one in found if one.attempts and not one.stuck]
    return await visit.render(
        "stuck.html",
        title="Stuck revocations",
        stuck=stuck[:MAX_SHOWN],
        waiting=waiting[:MAX_SHOWN],
        is_partial=is_partial or max(len(stuck), len(waiting)) > MAX_SHOWN,
    )


async def _list_revoking(visit: Visit, prefix: str) -> tuple[list[pb.Lease], bool]:
    """Return leases that are being revoked, and whether there are more than were read."""
    request = pb.ListLeasesRequest(prefix=prefix, state=pb.Lease.REVOKING, page_size=_PAGE)
    found: list[pb.Lease] = []
    while len(found) < MAX_READ:
        try:
            answer = await visit.call("LeaseService.ListLeases", request, pb.ListLeasesResponse)
        except CallRefused as failed:
            if failed.kind is ErrorKind.NOT_FOUND:
                return [], False
            raise
        found += answer.leases
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found, False
    return found, True
