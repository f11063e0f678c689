"""Iterates over everything that the store lists page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.rotation import Rotation
from lessor_server.engine.ports import Store

PAGE = 500


class Named(Protocol):
    """Something that a page is sorted by."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...


T = TypeVar("T")


def iter_mounts(store: Store) -> AsyncIterator[Mount]:
    """Yield all mounts by name."""
    return _every(lambda after: store.list_mounts(after, PAGE), _name)


def iter_mount_names(store: Store) -> AsyncIterator[str]:
    """Yield the names of all mounts, including those with unreadable rows."""
    return _every(lambda after: store.mount_names(after, PAGE), str)


def iter_roles(store: Store, mount: str) -> AsyncIterator[Role]:
    """Yield all roles of a mount by name."""
    return _every(lambda after: store.list_roles(mount, after, PAGE), _name)


def iter_static_roles(store: Store, mount: str) -> AsyncIterator[Rotation]:
    """Yield all static roles of a mount by name."""
    return _every(lambda after: store.list_static(mount, after, PAGE), _name)


def _name(one: Named) -> str:
    return one.name


async def _every(page: Callable[[str], Awaitable[list[T]]], name_of: Callable[[T], str]) -> AsyncIterator[T]:
    found = await page("")
    while found:
        for one in found:
            yield one
        found = await page(name_of(found[-1])) if len(found) == PAGE else []
