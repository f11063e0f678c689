"""The table of Vault's paths: which operations each has, by which methods of our services they are served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from lessor_server.http_edge.vault.reply import Reply

if TYPE_CHECKING:
    from lessor_server.http_edge.vault.call import VaultCall


class Verb(Enum):
    """What a request does; Vault's policies call these capabilities."""

    READ = "GET"
    LIST = "LIST"
    WRITE = "POST, PUT"
    DELETE = "DELETE"


Serve = Callable[["VaultCall"], Awaitable[Reply]]

REST: Final = "..."
"""The end of a pattern whose last name takes the rest of the path, slashes included."""


@dataclass(frozen=True, slots=True)
class VaultOperation:
    """One operation: the methods of our services that it may call, the first with the caller's rights."""

    serve: Serve
    rpcs: tuple[str, ...] = ()
    is_public: bool = False
    """Anyone may ask, also by HEAD."""
    says_missing: bool = False
    """Answer 400 with a text instead of 404 if what is named does not exist."""


@dataclass(frozen=True, slots=True)
class VaultRoute:
    """A path, such as ``{mount}/roles/{role}``, and its operations."""

    pattern: str
    operations: Mapping[Verb, VaultOperation]
    help: str

    def open_to_all(self) -> list[Verb]:
        """Return the operations that call no method with a right of its own: every identity has them."""
        return [verb for verb, one in self.operations.items() if not one.rpcs and not one.is_public]


class RouteTable:
    """All routes."""

    def __init__(self, routes: Iterable[VaultRoute]) -> None:
        """Find the first route that matches, in this order."""
        self.routes = tuple(routes)
        self._parts = [(route, tuple(route.pattern.split("/"))) for route in self.routes]

    def find(self, path: Sequence[str]) -> tuple[VaultRoute, dict[str, str]] | None:
        """Return the route of a path, given in parts, and the names in it."""
        for route, parts in self._parts:
            if (names := _match(parts, path)) is not None:
                return route, names
        return None


def _match(pattern: Sequence[str], path: Sequence[str]) -> dict[str, str] | None:
    takes_rest = pattern[-1].endswith(REST + "}")
    if len(path) < len(pattern) if takes_rest else len(path) != len(pattern):
        return None
    names: dict[str, str] = {}
    for index, part in enumerate(pattern):
        if part.startswith("{"):
            is_last = takes_rest and index == len(pattern) - 1
            name = part[1:-1].removesuffix(REST)
            names[name] = "/".join(path[index:]) if is_last else path[index]
        elif part != path[index]:
            return None
    return names
