"""The services over a world's engine, called as the guard calls them, without a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from lessor_server.domain.access.acl import EVERYTHING
from lessor_server.domain.access.caller import ROOT, Principal
from lessor_server.services.call import Caller
from lessor_server.services.config import ConfigService
from lessor_server.services.creds import CredsService
from lessor_server.services.lease import LeaseService
from lessor_server.services.role import RoleService
from lessor_server.services.system import About, SystemService
from tests.support.engine_world import World

ABOUT = About("", "", dev_mode=False, linter="", warnings=())


def services_of(
    w: World, about: About = ABOUT, warnings: Callable[[], Iterable[str]] = tuple
) -> dict[str, Any]:
    """Return the services over the world's engine, by name."""
    engine = w.engine
    return {
        "ConfigService": ConfigService(
            engine.mounts, engine.mount_remover, engine.root_checker, engine.root_keys
        ),
        "RoleService": RoleService(engine.roles, engine.root_checker, engine.prefixes, engine.static_roles),
        "CredsService": CredsService(engine.issuer, engine.credential_stream, engine.static_roles),
        "LeaseService": LeaseService(engine.leases, engine.prefixes, engine.reconciler, engine.lease_events),
        "SystemService": SystemService(
            about,
            engine.expiry,
            engine.backup,
            engine.mounts.find_misplaced_tokens,
            engine.store_status,
            warnings,
        ),
    }


class Served:
    """Calls the methods of all services by name."""

    def __init__(self, w: World, principal: Principal = ROOT) -> None:
        """Call the world's engine as ``principal``."""
        self._caller = Caller(principal, math.inf, EVERYTHING)
        self._services = services_of(w)

    async def __call__(self, method: str, request: Message) -> list[Message]:
        """Call ``Service.Method`` and return its response, or all messages of a stream."""
        service, _, name = method.partition(".")
        answer = getattr(self._services[service], name)(request, self._caller)
        if hasattr(answer, "__anext__"):
            return [message async for message in answer if message is not None]
        return [await answer]
