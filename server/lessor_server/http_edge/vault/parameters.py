"""The parameters of a request, as Vault's clients write them: in the query, or in the body, which wins."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from multidict import MultiDict, MultiMapping

from lessor_server.domain.errors.base import Invalid, Violation, shown
from lessor_server.http_edge.body import parse_object
from lessor_server.http_edge.exchange import as_text
from lessor_server.services.parsing import MAX_ITEMS

MAX_SECONDS: Final = 315_576_000_000
"""The bound of a Duration, about 10,000 years (google/protobuf/duration.proto)."""
MAX_NUMBER: Final = (1 << 31) - 1
MAX_MEMBERS: Final = 256
"""The maximum number of parameters of a request, unknown ones included."""
MAX_DOCUMENT: Final = 64 << 10
"""The maximum length of a JSON document that is sent as a text; IAM's have at most 6,144 characters."""
MAX_WARNED: Final = 20
"""The number of unknown parameters that a warning names."""
_UNITS: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
"""Microseconds in each unit."""
_PART: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6})\d{0,9})?(ms|d|h|m|s)", re.ASCII)
_WHOLE: Final = re.compile(r"-?\d{1,10}", re.ASCII)
_SECONDS: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6})\d{0,9})?", re.ASCII)
_SPAN_FIX: Final = 'send seconds, or text such as "1h30m"'
_IDLE: Final = frozenset(
    (
        "external_entropy_access",
        "force_no_cache",
        "help",
        "list",
        "local",
        "name",
        "options",
        "path",
        "plugin_name",
        "seal_wrap",
    )
)
"""Parameters of Vault that have no meaning here or are in the path, and of which nothing is warned."""


class Parameters:
    """The parameters of one request; it notes which are read, and the others are warned of."""

    def __init__(self, query: MultiMapping[str], body: Mapping[str, object]) -> None:
        """Use ``query`` and ``body``; a null member is absent."""
        given: dict[str, object] = {}
        for name in query:
            values = [as_text(value) for value in query.getall(name)]
            given[as_text(name)] = values[0] if len(values) == 1 else values
        given |= body
        if len(given) > MAX_MEMBERS:
            raise _invalid("body", f"has {len(given)} members", f"send at most {MAX_MEMBERS}")
        self._given = {name: value for name, value in given.items() if value is not None}
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Return whether a parameter is given."""
        self._read.add(name)
        return name in self._given

    def ignore(self, names: Collection[str]) -> None:
        """Give no warning of ``names``."""
        self._read.update(names)

    def text(self, name: str) -> str:
        """Return a text, empty if it is absent."""
        value = self._get(name)
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str | int | float):
            return str(value)
        raise _invalid(name, "is not a text", "send a string")

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a boolean: true, "true", 1 or "1", and the opposites."""
        value = self._get(name)
        if value is None or value == "":
            return default
        found = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}.get(
            str(value).lower()
        )
        if found is None:
            raise _invalid(name, f"{shown(str(value))} is not a boolean", "send true or false")
        return found

    def number(self, name: str) -> int:
        """Return a whole number, 0 if it is absent or empty."""
        value = self._get(name)
        if value is None or value == "":
            return 0
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        if isinstance(value, bool) or not _WHOLE.fullmatch(text):
            raise _invalid(name, f"{shown(text)} is not a whole number", "send a number")
        if abs(int(text)) > MAX_NUMBER:
            raise _invalid(name, f"{text} is too large", f"send at most {MAX_NUMBER}")
        return int(text)

    def span(self, name: str) -> Duration | None:
        """Return a span, None if it is absent or empty: 3600, "3600", "1h30m"."""
        value = self._get(name)
        if value is None or value == "":
            return None
        microseconds = _microseconds(value)
        if microseconds is None or abs(microseconds) > MAX_SECONDS * 1_000_000:
            raise _invalid(name, f"{shown(str(value))} is not a duration", _SPAN_FIX)
        span = Duration()
        span.FromMicroseconds(microseconds)
        return span

    def texts(self, name: str) -> list[str]:
        """Return a list of texts: an array, or one text with commas."""
        value = self._get(name)
        if value is None:
            return []
        items = value if isinstance(value, list) else str(value).split(",")
        _require_few(name, len(items))
        if not all(isinstance(item, str | int) for item in items):
            raise _invalid(name, "is not a list of texts", 'send ["a", "b"] or "a,b"')
        return [text for item in items if (text := str(item).strip())]

    def pairs(self, name: str) -> dict[str, str]:
        """Return a map of texts: an object, ``"k=v"``, or an array of ``"k=v"``."""
        value = self._get(name)
        if value is None or value == "":
            return {}
        if isinstance(value, dict):
            found = value
            _require_few(name, len(found))
        else:
            items = value if isinstance(value, list) else str(value).split(",")
            _require_few(name, len(items))
            if not all(isinstance(item, str) and "=" in item for item in items):
                raise _invalid(name, "is not a map of texts", 'send {"key": "value"} or "key=value"')
            found = {key.strip(): text for key, _, text in (str(item).partition("=") for item in items)}
        if not all(isinstance(text, str | int | float) for text in found.values()):
            raise _invalid(name, "has a value that is not a text", "send texts")
        return {str(key): str(text) for key, text in found.items()}

    def document(self, name: str) -> Struct | None:
        """Return a JSON object, sent as one or as its text; None if it is absent or empty."""
        value = self._get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str):
            if len(value) > MAX_DOCUMENT:
                raise _invalid(name, f"has {len(value)} characters", f"send at most {MAX_DOCUMENT}")
            try:
                value = parse_object(value.encode())
            except Invalid as error:
                raise _invalid(name, error.violations[0].problem, "send a JSON object") from None
        if not isinstance(value, dict):
            raise _invalid(name, "is not a JSON object", "send one, or its text")
        _require_few(name, _count(value))
        try:
            return ParseDict(value, Struct())
        except (ParseError, ValueError, OverflowError):
            raise _invalid(name, "has numbers that are too large", "send a smaller number") from None

    def nested(self, name: str) -> Parameters:
        """Return the parameters in an object, none if it is absent."""
        value = self._get(name)
        if value is None or value == "":
            value = {}
        if not isinstance(value, dict):
            raise _invalid(name, "is not a JSON object", "send one")
        return Parameters(MultiDict(), value)

    @staticmethod
    def invalid(name: str, problem: str, fix: str) -> Invalid:
        """Return the error of a parameter."""
        return _invalid(name, problem, fix)

    @property
    def warnings(self) -> list[str]:
        """Return the warning of parameters that nothing has read."""
        unknown = sorted(self._given.keys() - self._read - _IDLE)
        if not unknown:
            return []
        names = " ".join(shown(name)[1:-1] for name in unknown[:MAX_WARNED])
        return [f"Endpoint ignored these unrecognized parameters: [{names}]"]

    def _get(self, name: str) -> object:
        self._read.add(name)
        return self._given.get(name)


def _require_few(name: str, count: int) -> None:
    """Raise ``Invalid`` for more items than a request of gRPC may have, before they become a message."""
    if count > MAX_ITEMS:
        raise _invalid(name, f"has {count} items or more", f"send at most {MAX_ITEMS}")


def _count(value: object) -> int:
    """Return the number of items in a JSON document; counting ends at the maximum."""
    count, left = 0, [value]
    while left and count <= MAX_ITEMS:
        one = left.pop()
        if isinstance(one, dict | list):
            count += len(one)
            left += one.values() if isinstance(one, dict) else one
    return count


def _microseconds(value: object) -> int | None:
    """Return a span as Go writes it, in microseconds, or None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value * 1_000_000
    if isinstance(value, float):
        micros = value * 1e6  # it may overflow to infinity
        return round(micros) if math.isfinite(micros) else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if found := _SECONDS.fullmatch(text):
        return sign * _part(found[1], found[2], "s")
    total = end = 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        total, end = total + _part(part[1], part[2], part[3]), part.end()
    return sign * total if text and end == len(text) else None


def _part(whole: str, fraction: str | None, unit: str) -> int:
    micros = int(whole) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    return micros * _UNITS[unit] // 1_000_000


def go_span(seconds: int) -> str:
    """Return a span as Go prints it: 1h30m0s."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"


def compact(document: object) -> str:
    """Return JSON as one short text."""
    return json.dumps(document, separators=(",", ":"))


def _invalid(field: str, problem: str, fix: str) -> Invalid:
    return Invalid((Violation(field, problem, fix),))
