"""The faces of the HTTP edge that the settings turn on.

They take time to load, so only a server that listens for HTTP imports this.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import lessor
from lessor_server.adapters.clock import SystemClock
from lessor_server.domain.access.caller import Peer
from lessor_server.http_edge.calls import Calls
from lessor_server.http_edge.console.cookies import Cookies
from lessor_server.http_edge.console.face import ConsoleFace
from lessor_server.http_edge.console.pages import PageTemplates
from lessor_server.http_edge.console.sessions import LoginSessions
from lessor_server.http_edge.console.site import ROUTES
from lessor_server.http_edge.console.visit import Console
from lessor_server.http_edge.edge import Face
from lessor_server.http_edge.vault.call import ServerFacts
from lessor_server.http_edge.vault.face import VaultFace
from lessor_server.http_edge.vault.reply import Issued
from lessor_server.http_edge.vault.shapes import derived_uuid
from lessor_server.http_start import FaceParts
from lessor_server.services.logins import NewToken
from lessor_server.services.sign_in_links import SignInLinks
from lessor_server.settings.model import Settings

VAULT_VERSION: Final = "1.21.0"
"""The version of Vault whose API this is; Terraform reads from it which fields it may send."""


def faces_of(settings: Settings, parts: FaceParts) -> tuple[Face, ...]:
    """Return the faces that the settings turn on."""
    calls = Calls(parts.guard, parts.services, parts.logins)
    faces: list[Face] = []
    if settings.http.vault_api:
        facts = ServerFacts(
            version=f"{VAULT_VERSION}+lessor.{lessor.__version__}",
            cluster_id=derived_uuid(f"instance/{parts.instance_id}"),
            storage="postgresql" if settings.store.is_shared else "sqlite",
            wall_us=SystemClock().wall_us,
        )
        faces.append(VaultFace(calls, facts, parts.report, partial(_withdraw, parts), parts.rng.getrandbits))
    if parts.sign_in_links is not None:
        faces.append(_console(settings, calls, parts, parts.sign_in_links))
    return tuple(faces)


def _withdraw(parts: FaceParts, issued: Issued, peer: Peer) -> None:
    """Begin to end what its caller did not get: the lease of a key, or a login token."""
    if isinstance(issued, NewToken):
        parts.start(parts.logins.withdraw(issued, peer))
    else:
        parts.audit.withdraw(issued)


def _console(settings: Settings, calls: Calls, parts: FaceParts, links: SignInLinks) -> ConsoleFace:
    """Return the console; its templates are read here, before the server serves."""
    cookies = Cookies(parts.rng, tls=settings.tls is not None)
    console = Console(calls, cookies, PageTemplates(), parts.rng, parts.audit.withdraw)
    return ConsoleFace(console, LoginSessions(parts.guard, parts.logins, links), ROUTES, parts.report)
