"""Which handler serves which path of the console."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from aiohttp.web import StreamResponse

from lessor_server.http_edge.console.visit import Visit

Handler = Callable[[Visit], Awaitable[StreamResponse]]
Verb = Literal["GET", "POST"]
_NAME: Final = re.compile(r"\{(\w+)(\*?)\}")


@dataclass(frozen=True, slots=True)
class ConsoleRoute:
    """One page or action; ``{name}`` in the path stands for one step, and ``{name*}`` for all that follow."""

    verb: Verb
    path: str
    handler: Handler
    _steps: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the path."""
        object.__setattr__(self, "_steps", tuple(self.path.split("/")))

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the names in a path, or None if it is another path."""
        names: dict[str, str] = {}
        given = path.split("/")
        for number, step in enumerate(self._steps):
            rest = "/".join(given[number:])
            found = _NAME.fullmatch(step)
            if found is not None and found[2]:
                return names | {found[1]: rest} if rest else None
            if number >= len(given) or not (given[number] if found else given[number] == step):
                return None
            if found is not None:
                names[found[1]] = given[number]
        return names if len(given) == len(self._steps) else None


def find_routes(routes: Iterable[ConsoleRoute], path: str) -> dict[str, tuple[Handler, Mapping[str, str]]]:
    """Return by verb the first route of a path, and the names in it."""
    found: dict[str, tuple[Handler, Mapping[str, str]]] = {}
    for one in routes:
        names = one.match(path)
        if names is not None:
            found.setdefault(one.verb, (one.handler, names))
    return found
