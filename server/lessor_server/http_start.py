"""Starts the HTTP edge of a server, if it has a listener, with the faces of its settings."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from lessor_server.adapters.process import raise_limit
from lessor_server.adapters.tls import Certificates
from lessor_server.engine.ports import Report
from lessor_server.http_edge.calls import Calls, Service
from lessor_server.http_edge.edge import EdgeConfig, Face, HttpEdge
from lessor_server.http_edge.console.cookies import Cookies
from lessor_server.http_edge.console.face import ConsoleFace
from lessor_server.http_edge.console.pages import Pages
from lessor_server.http_edge.console.sessions import TokenSessions
from lessor_server.http_edge.console.site import ROUTES
from lessor_server.http_edge.console.visit import Console
from lessor_server.http_edge.vault.face import VaultFace
from lessor_server.services.guard import Guard
from lessor_server.settings.model import Settings

MAX_CONNECTIONS: Final = 1_000
DESCRIPTORS_SHARE: Final = 8
"""Connections over HTTP take at most this part (one eighth) of the process's file descriptors."""


def edge_of(settings: Settings, certificates: Certificates | None, report: Report) -> HttpEdge:
    """Return the edge, closed.

    Raises:
        CertificateUnusable: OpenSSL can't use the files of ``tls``.
    """
    listener = settings.http.listen
    if listener is None:
        return HttpEdge(EdgeConfig(None), report)
    tls = None
    if certificates is not None:
        tls = certificates.http_context(client_auth=listener.client_auth != "none")
    config = EdgeConfig(
        listener.address,
        settings.http.hosts,
        tls,
        max_connections=min(MAX_CONNECTIONS, raise_limit() // DESCRIPTORS_SHARE),
        shares_port=bool(settings.worker),
    )
    return HttpEdge(config, report)


def faces_of(
    settings: Settings, guard: Guard, services: Iterable[Service], rng: Random, report: Report
) -> tuple[Face, ...]:
    """Return the faces that the settings turn on, which serve the methods of ``services``.

    Unexpected exceptions go to ``report``.
    """
    calls = Calls(guard, services)
    faces: list[Face] = []
    if settings.http.vault_api:
        faces.append(VaultFace(calls))
    if settings.http.console:
        faces.append(_console(settings, calls, rng, report))
    return tuple(faces)


def _console(settings: Settings, calls: Calls, rng: Random, report: Report) -> ConsoleFace:
    """Return the console; its templates are read here, before the server serves."""
    cookies = Cookies(rng, tls=settings.tls is not None)
    return ConsoleFace(Console(calls, cookies, Pages(), rng), TokenSessions(calls), ROUTES, report)
