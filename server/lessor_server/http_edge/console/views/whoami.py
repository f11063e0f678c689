"""Who the person is, and what the server is."""

from __future__ import annotations

from aiohttp.web import StreamResponse

from lessor_server.http_edge.console.visit import Visit


async def show_whoami(visit: Visit) -> StreamResponse:
    """Show the person's identity, policies and labels, and the server's version and warnings."""
    return await visit.render("whoami.html", title="Who am I")
