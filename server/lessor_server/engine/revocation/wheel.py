"""A hashed timing wheel with dict slots, which wakes only for filled slots.

Source: Varghese & Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 6, and Kafka's
purgatory, which wakes at the next filled slot and not at every tick. Slots are one second wide. An entry is
in the first slot that ends at or after its due time, so it is never early, and at most a second late.
"""

from __future__ import annotations

import heapq

SLOT_US = 1_000_000
_PARTS = 256
"""In how many parts the index is: a dict that grows copies all of its entries, 80 ms for a million."""


class Wheel:
    """Deadlines by key; a key has one deadline, and inserting it again moves it."""

    def __init__(self) -> None:
        """Create an empty wheel."""
        self._slots: dict[int, dict[str, int]] = {}
        self._index: tuple[dict[str, int], ...] = tuple({} for _ in range(_PARTS))
        """The number of each key's slot, in parts by the key's hash."""
        self._plan: list[int] = []

    def __len__(self) -> int:
        """Return how many deadlines the wheel holds."""
        return sum(map(len, self._index))

    def insert(self, key: str, due_us: int) -> None:
        """Hold ``key`` until ``due_us``; this replaces an earlier deadline."""
        number = -(-due_us // SLOT_US)
        part = self._index[hash(key) % _PARTS]
        before = part.get(key)
        if before is not None and before != number:
            del self._slots[before][key]
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heapq.heappush(self._plan, number)
        slot[key] = due_us
        part[key] = number

    def cancel(self, key: str) -> None:
        """Forget ``key``, if the wheel holds it."""
        number = self._index[hash(key) % _PARTS].pop(key, None)
        if number is not None:
            del self._slots[number][key]

    def next_us(self) -> int | None:
        """Return the end of the first filled slot, or None if all are empty."""
        while self._plan and not self._slots[self._plan[0]]:
            del self._slots[heapq.heappop(self._plan)]
        return self._plan[0] * SLOT_US if self._plan else None

    def pop(self, now_us: int) -> list[str]:
        """Take out and return all keys whose slots have ended by ``now_us``, earliest slot first."""
        taken: list[str] = []
        while self._plan and self._plan[0] * SLOT_US <= now_us:
            slot = self._slots.pop(heapq.heappop(self._plan))
            for key in slot:
                del self._index[hash(key) % _PARTS][key]
            taken.extend(sorted(slot, key=slot.__getitem__))
        return taken
