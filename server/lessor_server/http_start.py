"""Starts the HTTP edge of a server, if it has a listener; ``http_faces`` has what it serves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Final

from lessor_server.adapters.process import raise_limit
from lessor_server.adapters.tls import Certificates
from lessor_server.engine.ports import Report
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.http_edge.calls import Service
from lessor_server.http_edge.edge import EdgeConfig, HttpEdge
from lessor_server.services.audit import CallAudit
from lessor_server.services.guard import Guard
from lessor_server.services.logins import Logins
from lessor_server.services.sign_in_links import SignInLinks
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


@dataclass(frozen=True, slots=True)
class FaceParts:
    """What the faces need of the server; ``instance_id`` is that of its store.

    ``sign_in_links`` is None if there is no console.
    """

    guard: Guard
    services: tuple[Service, ...]
    audit: CallAudit
    report: Report
    rng: Random
    instance_id: str
    logins: Logins
    start: Callable[[Coroutine[object, object, None]], object]
    """Runs a job in the background."""
    sign_in_links: SignInLinks | None


def sign_in_links_of(settings: Settings, logins: Logins, sealer: Sealer) -> SignInLinks | None:
    """Return what creates links to the console; None if there is none."""
    has_console = settings.http.listen is not None and settings.http.console
    return SignInLinks(logins, sealer) if has_console else None
