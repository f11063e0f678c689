"""Converts protobuf messages to domain values and back; the domain has the rules."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import cache
from typing import ParamSpec, Self, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from lessor_server.domain.durations import SECOND
from lessor_server.domain.errors.base import Invalid, Violation, require, shown
from lessor_server.domain.lease_id import is_name, name_violations
from lessor_server.domain.policy.policy import JsonValue

DEFAULT_MOUNT = "aws"
PAGE_DEFAULT, MAX_PAGE = 100, 1000
MAX_PAGE_BYTES = 1 << 20
"""The maximum bytes of the items in one page: gRPC clients accept 4 MiB by default."""
STRIDE = 10
"""Items of a long answer that are converted before other calls run."""
MAX_PATHS = 100
"""The maximum number of paths in an update mask, duplicates included."""
MAX_REASON = MAX_OWNER = 256
_NANOS_IN_MICRO = 1000
_EMPTY_FIX = (
    "send the policy as a google.protobuf.Struct, or leave the field out; some libraries, such as Node's"
    " proto-loader, send a plain object as an empty Struct: convert it first"
)
_MAX_SECONDS = 315_576_000_000
"""A Duration's bound, about 10,000 years (google/protobuf/duration.proto)."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")
P = ParamSpec("P")


class Problems:
    """Collects the problems of a request's shape; the end of its block raises all of them together.

    >>> with Problems() as problems:
    ...     mount = problems.parse(mount_of, request.mount)
    ...     size = problems.parse(page_size, request.page_size)
    >>> # Here both are well-formed. The engine checks the rules of the domain.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._found: list[Violation] = []

    def __enter__(self) -> Self:
        """Begin to read a request."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raise ``Invalid`` with all problems, if there are any."""
        if kind is None:
            require(self._found)

    def parse(self, parser: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of ``parser`` with these arguments.

        If they are invalid, the block raises at its end, and the result must not be used.
        """
        try:
            return parser(*args, **kwargs)
        except Invalid as error:
            self._found += error.violations
            return cast("T", None)

    def add(self, field: str, problem: str, fix: str) -> None:
        """Note one problem."""
        self._found.append(Violation(field, problem, fix))


@cache
def fields_of(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of the fields of a class of messages."""
    return frozenset(descriptor.fields_by_name)


def invalid(field: str, problem: str, fix: str) -> Invalid:
    """Return an error with one violation."""
    return Invalid((Violation(field, problem, fix),))


def mount_of(text: str) -> str:
    """Return the mount that a request names; empty means ``aws``. Raises ``Invalid`` for an invalid name."""
    if not text:
        return DEFAULT_MOUNT
    violations = name_violations("mount", text)
    if violations:
        raise Invalid(tuple(violations))
    return text


def role_of(text: str, field: str) -> str:
    """Return the role that a request names in ``field``. Raises ``Invalid`` for an invalid name."""
    violations = name_violations(field, text)
    if violations:
        raise Invalid(tuple(violations))
    return text


def named(mount: str, role: str, field: str) -> tuple[str, str]:
    """Return the mount and the role that a request names, or raise ``Invalid`` with each invalid name."""
    with Problems() as problems:
        return problems.parse(mount_of, mount), problems.parse(role_of, role, field)


def parse_duration(message: Message, field: str, under: str = "") -> timedelta | None:
    """Return a Duration field, or None if it is absent; violations name it below ``under``."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    if abs(value.seconds) > _MAX_SECONDS or abs(value.nanos) >= 10**9 or value.nanos % _NANOS_IN_MICRO:
        violation = Violation(
            field, "is not a duration in whole seconds", "give whole seconds, at most ten years"
        )
        raise Invalid((violation.under(under) if under else violation,))
    return timedelta(seconds=value.seconds, microseconds=value.nanos // _NANOS_IN_MICRO)


def parse_durations(
    message: Message, fields: Collection[str], under: str = ""
) -> dict[str, timedelta | None]:
    """Return Duration fields by name; None (absent or zero) means the default."""
    with Problems() as problems:
        return {field: problems.parse(parse_duration, message, field, under) or None for field in fields}


def to_duration(value: timedelta | None) -> Duration | None:
    """Return a span as a Duration; None stays absent."""
    if value is None:
        return None
    made = Duration()
    made.FromTimedelta(value)
    return made


def to_whole_seconds(value: timedelta) -> Duration:
    """Return a span as a Duration of whole seconds."""
    made = Duration()
    set_whole_seconds(made, value)
    return made


def set_whole_seconds(field: Duration, value: timedelta) -> None:
    """Set a field of a message to a span in whole seconds. Faster than a copy."""
    field.SetInParent()
    field.seconds = max(value // SECOND, 0)


def signed_duration(span_us: int) -> Duration:
    """Return a span in microseconds, which may be negative."""
    made = Duration()
    made.FromMicroseconds(span_us)
    return made


def timestamp(instant_us: int) -> Timestamp | None:
    """Return an instant as a Timestamp; 0 ("never") is absent."""
    if not instant_us:
        return None
    made = Timestamp()
    set_timestamp(made, instant_us)
    return made


def set_timestamp(field: Timestamp, instant_us: int) -> None:
    """Set a field of a message to an instant; 0 ("never") leaves it absent. Faster than a copy."""
    if instant_us:
        seconds, micros = divmod(instant_us, 10**6)
        field.seconds, field.nanos = seconds, micros * _NANOS_IN_MICRO


def reason(text: str) -> str:
    """Return a caller's reason, which is stored, logged and shown; raise ``Invalid`` if it is invalid."""
    if len(text) > MAX_REASON:
        raise invalid("reason", f"has {len(text)} characters", f"give at most {MAX_REASON}")
    if not text.isprintable():
        raise invalid("reason", "has characters that can't be printed", "write it on one line, as plain text")
    return text


def owner_of(text: str) -> str:
    """Return the owner whose leases a request names; empty means every owner's. Raises ``Invalid``."""
    if len(text) > MAX_OWNER:
        raise invalid("owner", f"has {len(text)} characters", f"give at most {MAX_OWNER}")
    if not text.isprintable():
        raise invalid("owner", "has characters that no owner has", "give the owner as leases show it")
    return text


def parse_document(value: Struct, field: str) -> dict[str, JsonValue]:
    """Return a Struct as plain values; numbers are floats, as Struct has them.

    Raises ``Invalid`` that names ``field`` for NaN and infinities, which JSON lacks (RFC 8259, 6), and for
    an empty object: protobuf.js, and so Node's proto-loader, sends a plain object as one.
    """
    if not value.fields:
        raise invalid(field, "is an empty object", _EMPTY_FIX)
    try:
        return {key: _plain(inner) for key, inner in value.fields.items()}
    except ValueError:
        raise invalid(field, "holds a number that is not finite", "send finite numbers only") from None


def _plain(value: Value) -> JsonValue:
    """Return a value as JSON has it, null if it has no kind. Raises ``ValueError`` for NaN and infinities."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            if not math.isfinite(value.number_value):
                raise ValueError
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case "struct_value":
            return {key: _plain(inner) for key, inner in value.struct_value.fields.items()}
        case _:
            return None


def struct(text: str) -> Struct:
    """Return a JSON object as a Struct."""
    made = Struct()
    made.update(json.loads(text))
    return made


def paths(mask: FieldMask, fields: Collection[str], fix: str, problems: Problems) -> list[str]:
    """Return each path of ``mask`` that is one of ``fields``, and report the others as problems."""
    if len(mask.paths) > MAX_PATHS:
        problems.add("update_mask", f"has {len(mask.paths)} paths", f"give at most {MAX_PATHS}")
        return []
    named = dict.fromkeys(mask.paths)  # a mask is a set: a repeated field would be appended twice
    for path in named:
        if path not in fields:
            problems.add("update_mask", f"{shown(path)} is not a field that can be changed", fix)
    return [path for path in named if path in fields]


def apply_mask(stored: M, sent: M, paths: Collection[str]) -> M:
    """Return ``stored`` with the fields in ``paths`` copied from ``sent``."""
    merged = type(stored)()
    merged.CopyFrom(stored)
    taken = type(sent)()
    for path in set(paths):
        merged.ClearField(path)
        _copy(sent, taken, path)
    merged.MergeFrom(taken)
    return merged


def _copy(source: Message, target: Message, field: str) -> None:
    """Copy one field between messages of one type."""
    for descriptor, value in source.ListFields():
        if descriptor.name != field:
            continue
        if descriptor.is_repeated:
            part = type(source)()
            getattr(part, field).MergeFrom(value)
            target.MergeFrom(part)
        elif descriptor.message_type is not None:
            getattr(target, field).CopyFrom(value)
        else:
            setattr(target, field, value)


def page_size(size: int) -> int:
    """Return the size of a page, or raise ``Invalid``."""
    if size < 0 or size > MAX_PAGE:
        raise invalid("page_size", f"{size} is not within 0 and {MAX_PAGE}", "give 0 for the default of 100")
    return size or PAGE_DEFAULT


def parse_page_token(text: str) -> str:
    """Return the name after which a page token continues, or raise ``Invalid`` for an invalid token."""
    if text and not is_name(text):
        raise invalid("page_token", f"{shown(text)} is not a valid token", "send next_page_token unchanged")
    return text


async def fill_page(items: Sequence[T], size: int, convert: Callable[[T], M]) -> tuple[list[M], bool]:
    """Return a page of items, of which one more than ``size`` was read, and whether more follow.

    A page ends early at ``MAX_PAGE_BYTES``, but has at least one item.
    """
    page: list[M] = []
    left = MAX_PAGE_BYTES
    for item in items[:size]:
        converted = convert(item)
        left -= converted.ByteSize()
        if left < 0 and page:
            return page, True
        page.append(converted)
        await take_turns(len(page))
    return page, len(items) > size


async def take_turns(done: int) -> None:
    """Let other calls run after each ``STRIDE`` items, of which ``done`` are converted."""
    if done % STRIDE == 0:
        await asyncio.sleep(0)
