"""Walks over all that the store lists page by page."""

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


N = TypeVar("N", bound=Named)


def every_mount(store: Store) -> AsyncIterator[Mount]:
    """Yield all mounts by name."""
    return _every(lambda after: store.list_mounts(after, PAGE))


def every_role(store: Store, mount: str) -> AsyncIterator[Role]:
    """Yield all roles of a mount by name."""
    return _every(lambda after: store.list_roles(mount, after, PAGE))


def every_static_role(store: Store, mount: str) -> AsyncIterator[Rotation]:
    """Yield all static roles of a mount by name."""
    return _every(lambda after: store.list_static(mount, after, PAGE))


async def _every(page: Callable[[str], Awaitable[list[N]]]) -> AsyncIterator[N]:
    found = await page("")
    while found:
        for one in found:
            yield one
        found = await page(found[-1].name) if len(found) == PAGE else []
