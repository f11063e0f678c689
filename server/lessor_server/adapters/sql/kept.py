"""Keeps what was read of the store until it may have changed."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_KEPT: Final = 1_024

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The last values that were read, at one version of what they were read from."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        """Begin without any; keep at most so many."""
        self._most = most
        self._version: object = None
        self._values: dict[K, V] = {}

    def get(self, version: object, key: K) -> V | None:
        """Return what was kept at this version."""
        return self._values.get(key) if version == self._version else None

    def put(self, version: object, key: K, value: V) -> None:
        """Keep what was read at this version, or later; if it has changed since, nobody asks for it."""
        if version != self._version:
            self._version = version
            self._values.clear()
        elif len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[key] = value

    def drop(self, key: K) -> None:
        """Forget a value that changes alone."""
        self._values.pop(key, None)
