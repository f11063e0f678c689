"""Starts the HTTP edge of a server, if it has a listener, with the faces of its settings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from random import Random
from typing import Final

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.process import raise_limit
from lessor_server.adapters.tls import Certificates
from lessor_server.domain.access.caller import Peer
from lessor_server.engine.ports import Report
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.http_edge.calls import Calls, Service
from lessor_server.http_edge.console.cookies import Cookies
from lessor_server.http_edge.console.face import ConsoleFace
from lessor_server.http_edge.console.pages import PageTemplates
from lessor_server.http_edge.console.sessions import LoginSessions
from lessor_server.http_edge.console.site import ROUTES
from lessor_server.http_edge.console.visit import Console
from lessor_server.http_edge.edge import EdgeConfig, Face, HttpEdge
from lessor_server.http_edge.vault.call import ServerFacts
from lessor_server.http_edge.vault.face import VaultFace
from lessor_server.http_edge.vault.reply import Issued
from lessor_server.http_edge.vault.shapes import derived_uuid
from lessor_server.services.audit import CallAudit
from lessor_server.services.guard import Guard
from lessor_server.services.logins import Logins, NewToken
from lessor_server.services.sign_in_links import SignInLinks
from lessor_server.settings.model import Settings

VAULT_VERSION: Final = "1.21.0"
"""The version of Vault whose API this is; Terraform reads from it which fields it may send."""
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

    def withdraw(self, issued: Issued, peer: Peer) -> None:
        """Begin to end what its caller did not get: the lease of a key, or a login token."""
        if isinstance(issued, NewToken):
            self.start(self.logins.withdraw(issued, peer))
        else:
            self.audit.withdraw(issued)


def faces_of(settings: Settings, parts: FaceParts) -> tuple[Face, ...]:
    """Return the faces that the settings turn on."""
    calls = Calls(parts.guard, parts.services, parts.logins)
    faces: list[Face] = []
    if settings.http.vault_api:
        facts = ServerFacts(
            version=f"{VAULT_VERSION}+lessor.{version('lessor')}",
            cluster_id=derived_uuid(f"instance/{parts.instance_id}"),
            storage="postgresql" if settings.store.is_shared else "sqlite",
            wall_us=SystemClock().wall_us,
        )
        faces.append(VaultFace(calls, facts, parts.report, parts.withdraw, parts.rng.getrandbits))
    if parts.sign_in_links is not None:
        faces.append(_console(settings, calls, parts, parts.sign_in_links))
    return tuple(faces)


def sign_in_links_of(settings: Settings, logins: Logins, sealer: Sealer) -> SignInLinks | None:
    """Return what creates links to the console; None if there is none."""
    has_console = settings.http.listen is not None and settings.http.console
    return SignInLinks(logins, sealer) if has_console else None


def _console(settings: Settings, calls: Calls, parts: FaceParts, links: SignInLinks) -> ConsoleFace:
    """Return the console; its templates are read here, before the server serves."""
    cookies = Cookies(parts.rng, tls=settings.tls is not None)
    console = Console(calls, cookies, PageTemplates(), parts.rng, parts.audit.withdraw)
    return ConsoleFace(console, LoginSessions(parts.guard, parts.logins, links), ROUTES, parts.report)
