"""Finds the replicas whose settings are not those of most others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def find_different_settings(
    settings: Mapping[str, Mapping[str, str]],
) -> dict[str, tuple[str, ...]]:
    """Return by replica the names of its settings that most others have with another value.

    ``settings`` has by replica the digests of its settings by name. If no value has a majority, the setting
    is named at each replica.
    """
    names = sorted({name for one in settings.values() for name in one})
    different: dict[str, list[str]] = {replica: [] for replica in settings}
    for name in names:
        values = Counter(one.get(name, "") for one in settings.values())
        usual, count = values.most_common(1)[0]
        has_majority = count * 2 > len(settings)
        for replica, one in settings.items():
            if len(values) > 1 and not (has_majority and one.get(name, "") == usual):
                different[replica].append(name)
    return {replica: tuple(found) for replica, found in different.items()}
