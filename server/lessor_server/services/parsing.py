"""Parses a request within limits, so that every later check takes a bounded number of steps.

The limits are its size, its number of items, its depth and the length of its texts. They are checked before
anything else reads the request. The rules of the domain limit each field more closely.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from lessor_server.domain.errors.base import Invalid, Violation, require, shown

MAX_REQUEST_BYTES: Final = 256 << 10
"""The maximum size of a request: twice that of the largest valid role in ASCII.

protobuf parses the worst content of this size in 3 ms, during which the interpreter lock is held.
"""
MAX_PUBLIC_BYTES: Final = 4 << 10
"""The same for a method that needs no credential: it needs a name. Anybody may send the worst content."""
MAX_UNKNOWN_BYTES: Final = 4 << 10
"""Up to this size unknown fields are listed: for a whole request protobuf would need 30 ms."""
MAX_ITEMS: Final = 1_024
"""The maximum number of items in all lists and maps of a request together, JSON documents included."""
MAX_TEXT: Final = 4_096
"""The maximum length of a text or a key."""
MAX_DEPTH: Final = 40
"""The maximum depth of messages; each level of a JSON document has two."""
MAX_UNSCANNED_BYTES: Final = 2 * MAX_DEPTH
"""A request of this size is within the limits of depth, items and texts.

A level takes at least two bytes, and an item and a character at least one.
"""
MAX_UNKNOWN: Final = 20
"""The number of unknown fields of a message that are named; more are only counted."""

WELL_KNOWN_TYPES: Final = "google.protobuf"
"""The package of Struct, FieldMask, Duration and the like."""

M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes, max_bytes: int = MAX_REQUEST_BYTES) -> M:
    """Return the request in ``data``, or raise ``Invalid``.

    An unknown field at any depth makes the request invalid. (protobuf keeps a map entry with an unknown field
    as an unknown field of the message that has the map.)
    """
    if len(data) > max_bytes:
        raise _invalid("", f"the request has {len(data)} bytes", f"send at most {max_bytes}")
    try:
        request = kind.FromString(data)
    except DecodeError:
        raise _invalid("", f"the bytes are not a valid {kind.DESCRIPTOR.full_name}", "send one") from None
    if len(data) > MAX_UNSCANNED_BYTES:
        _scan(request)
    unknown = _unknown_bytes(request, data)
    if unknown > MAX_UNKNOWN_BYTES:
        problem = f"the request has {unknown} bytes of fields that are not known to this version"
        raise _invalid("", problem, "leave them out")
    if unknown:
        require(violation for message, path in _scan(request) for violation in _unknown(message, path))
    return request


def _scan(request: Message) -> list[tuple[Message, str]]:
    """Return the messages in a request, itself included, with their paths; raise ``Invalid`` past a limit."""
    scan = _Scan()
    scan.message(request, "", 0)
    require(scan.found)
    return scan.messages


def _unknown_bytes(request: Message, data: bytes) -> int:
    """Return how many bytes of a request are unknown fields.

    Those more than 60 messages deep are not counted, but ``MAX_DEPTH`` is lower.
    """
    known = type(request).FromString(data)
    known.DiscardUnknownFields()
    return request.ByteSize() - known.ByteSize()


class _Scan:
    """Collects the violations of the limits in one request."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self.messages: list[tuple[Message, str]] = []
        self._items = 0

    def message(self, message: Message, path: str, depth: int) -> None:
        """Check the message at ``path`` and everything inside it."""
        if depth > MAX_DEPTH:
            raise _invalid(path, "is nested too deeply", f"nest at most {MAX_DEPTH // 2} levels")
        self.messages.append((message, path))
        # Inside a well-known type the path stays that of its field.
        own = message.DESCRIPTOR.file.package != WELL_KNOWN_TYPES
        for field, value in message.ListFields():
            where = path if not own else f"{path}.{field.name}" if path else field.name
            if not field.is_repeated:
                self._value(value, where, depth)
                continue
            self._count(len(value), where)
            if _is_map(field.message_type):
                for key in value:
                    spot = f"{where}[{shown(key)}]" if own else where
                    self._value(key, spot, depth)
                    self._value(value[key], spot, depth)
            else:
                for index, item in enumerate(value):
                    self._value(item, f"{where}[{index}]" if own else where, depth)

    def _value(self, value: Any, path: str, depth: int) -> None:  # noqa: ANN401 - what a message can hold
        if isinstance(value, str):
            if len(value) > MAX_TEXT:
                self.found.append(Violation(path, f"has {len(value)} characters", f"give at most {MAX_TEXT}"))
        elif isinstance(value, Message):
            self.message(value, path, depth + 1)

    def _count(self, items: int, path: str) -> None:
        """Count the items before any of them is checked."""
        self._items += items
        if self._items > MAX_ITEMS:
            problem = f"has {items} items, and the request {self._items} or more"
            raise _invalid(path, problem, f"send at most {MAX_ITEMS} items in a request")


def _unknown(message: Message, path: str) -> Iterator[Violation]:
    fields = UnknownFieldSet(message)
    count = len(fields)
    named = dict.fromkeys(fields[index].field_number for index in range(min(count, MAX_UNKNOWN)))
    for number in named:
        where = f"{path}.#{number}" if path else f"#{number}"
        yield Violation(where, "is not known to this version", "leave it out")
    if count > MAX_UNKNOWN:
        yield Violation(path, f"has {count} fields that are not known to this version", "leave them out")


@cache
def _is_map(kind: Descriptor | None) -> bool:
    return kind is not None and bool(kind.GetOptions().map_entry)


def _invalid(field: str, problem: str, fix: str) -> Invalid:
    return Invalid((Violation(field, problem, fix),))
