"""Shared steps of configuration writes: check mount and etag, and retry after a lost race."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from lessor_server.domain.errors.base import Aborted, NotFound
from lessor_server.domain.errors.preconditions import EtagMismatch
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot
from lessor_server.engine.ports import Store

T = TypeVar("T")

MAX_TRIES: Final = 5


async def require_mount(store: Store, name: str) -> Mount:
    """Return a mount, or raise ``NotFound``."""
    mount = await store.get_mount(name)
    if mount is None:
        raise NotFound("mount", name)
    return mount


def require_etag(what: str, stored: Role | StoredRoot | None, etag: str, subject: str) -> None:
    """Raise ``EtagMismatch`` if an ``etag`` is given that is not that of ``stored``."""
    if etag and (stored is None or stored.etag != etag):
        raise EtagMismatch(f"{what} was changed since the etag was read", subject=subject)


async def write_unless_changed(what: str, read_and_write: Callable[[], Awaitable[T | None]]) -> T:
    """Return the result of ``read_and_write``; retry while it is None, because another writer was faster.

    Raises:
        Aborted: ``what`` has changed at each attempt.
    """
    for _ in range(MAX_TRIES):
        written = await read_and_write()
        if written is not None:
            return written
    raise Aborted(f"{what} keeps changing", retry_in=0.1)
