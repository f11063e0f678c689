"""Makes this process one of several on PostgreSQL: its name, and the settings that all should share."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from pydantic import BaseModel

import lessor
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.file_reads import short_digest
from lessor_server.adapters.postgres.store import PostgresStore
from lessor_server.engine.ports import Store
from lessor_server.engine.replicas.registry import ThisReplica
from lessor_server.settings.model import Settings

OWN_SETTINGS: Final = frozenset(
    (
        *("listen", "insecure_listen", "data_dir", "root_token", "root_token_file", "tls", "log", "file"),
        *("worker", "warnings", "metrics", "http", "sealing", "store"),
        *("access.file", "audit.file", "audit.socket", "audit.stdout"),
    )
)
"""Settings that may differ between replicas, and those that hold a secret."""
ACCESS_FILE: Final = "access.file"
MAX_HOST_LENGTH: Final = 48


def as_replica(
    store: Store, settings: Settings, rng: Random, access_digest: Callable[[], str]
) -> ThisReplica | None:
    """Return this process as a replica, or None if the store is SQLite, which no other process uses."""
    if not isinstance(store, PostgresStore):
        return None
    host = "".join(one if one.isalnum() or one in "-." else "-" for one in socket.gethostname())
    name = f"{host[:MAX_HOST_LENGTH]}-{rng.getrandbits(32):08x}"
    fixed = tuple(_digests(settings))
    return ThisReplica(
        store, SystemClock(), name, lessor.__version__, lambda: (*fixed, (ACCESS_FILE, access_digest()))
    )


def _digests(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that replicas should share, with a digest of its value."""
    for name, value in _flatten("", settings):
        if name not in OWN_SETTINGS and name.partition(".")[0] not in OWN_SETTINGS:
            yield name, short_digest(repr(value).encode())


def _flatten(prefix: str, settings: BaseModel) -> Iterator[tuple[str, object]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
