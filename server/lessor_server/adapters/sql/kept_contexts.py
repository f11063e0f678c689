"""Keeps the configuration that issues read, until it changes."""

from __future__ import annotations

from typing import Final

from lessor_server.engine.store_types import StoredContext

MAX_KEPT_CONTEXTS: Final = 1_024


class KeptContexts:
    """The mounts, roots and roles of recent issues at one version of the configuration."""

    def __init__(self) -> None:
        """Begin without any."""
        self._version: object = None
        self._by_role: dict[tuple[str, str], StoredContext] = {}

    def get(self, version: object, mount: str, role: str) -> StoredContext | None:
        """Return what was kept at this version of the configuration."""
        return self._by_role.get((mount, role)) if version == self._version else None

    def put(self, version: object, mount: str, role: str, context: StoredContext) -> None:
        """Keep what was read at this version of the configuration, or later."""
        if version != self._version or len(self._by_role) >= MAX_KEPT_CONTEXTS:
            self._version = version
            self._by_role.clear()
        self._by_role[mount, role] = context
