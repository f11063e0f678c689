"""The parameters of a request, as Vault's clients write them: in the query, or in the body, which wins."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from multidict import MultiMapping

from lessor_server.domain.errors.base import Invalid, Violation, shown

MAX_SECONDS: Final = 315_576_000_000
_SPAN: Final = re.compile(r"(?:(\d{1,12}(?:\.\d{1,9})?)(h|ms|m|s|d))")
_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_IGNORED: Final = frozenset(
    (
        "options",
        "local",
        "seal_wrap",
        "external_entropy_access",
        "force_no_cache",
        "plugin_name",
        "list",
        "help",
    )
)
"""Members of Vault that have no meaning here, and no warning."""


class Parameters:
    """The parameters of one request; it notes which are read, and the others are warned of."""

    def __init__(self, query: MultiMapping[str], body: Mapping[str, object]) -> None:
        """Use ``query`` and ``body``; a null member is absent."""
        given: dict[str, object] = {}
        for name in query:
            values = query.getall(name)
            given[name] = values[0] if len(values) == 1 else list(values)
        given |= body
        self._given = {name: value for name, value in given.items() if value is not None}
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Return whether a parameter is given."""
        self._read.add(name)
        return name in self._given

    def text(self, name: str) -> str:
        """Return a text, empty if it is absent."""
        value = self._get(name)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return str(value).lower() if isinstance(value, bool) else str(value)
        raise _invalid(name, "is not a text", "send a string")

    def seconds(self, name: str) -> float | None:
        """Return a span in seconds, None if it is absent or empty: 3600, "3600", "1h30m"."""
        value = self._get(name)
        if value is None or value == "":
            return None
        found = _seconds(value)
        if found is None or not -MAX_SECONDS <= found <= MAX_SECONDS:
            raise _invalid(
                name, f"{shown(str(value))} is not a duration", 'send seconds, or text such as "1h30m"'
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """Return the warning of parameters that nothing has read."""
        unknown = sorted(self._given.keys() - self._read - _IGNORED)
        if not unknown:
            return []
        names = " ".join(shown(name).strip("'\"") for name in unknown[:20])
        return [f"Endpoint ignored these unrecognized parameters: [{names}]"]

    def _get(self, name: str) -> object:
        self._read.add(name)
        return self._given.get(name)


def _seconds(value: object) -> float | None:
    """Return a span in seconds as Go writes it, or None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    sign = -1.0 if text.startswith("-") else 1.0
    text = text.lstrip("+-")
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,9})?", text, re.ASCII):
        return sign * float(text)
    if not text or not re.fullmatch(rf"(?:{_SPAN.pattern})+", text, re.ASCII):
        return None
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))


def _invalid(field: str, problem: str, fix: str) -> Invalid:
    return Invalid((Violation(field, problem, fix),))
