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
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compile the path."""
        text = _NAME.sub(lambda found: f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})", self.path)
        object.__setattr__(self, "_pattern", re.compile(text))

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the names in a path, or None if it is another path."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()


def find_routes(routes: Iterable[ConsoleRoute], path: str) -> dict[str, tuple[Handler, Mapping[str, str]]]:
    """Return by verb the first route of a path, and the names in it."""
    found: dict[str, tuple[Handler, Mapping[str, str]]] = {}
    for one in routes:
        names = one.match(path)
        if names is not None:
            found.setdefault(one.verb, (one.handler, names))
    return found
