"""Builds a request from the arguments of a method: durations, policies, enums and lists in Python's types."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from lessor import values
from lessor.redaction import SECRET_FIELDS
from lessor.values import InvalidValue, JsonValue

DurationLike = timedelta | str | int | float
"""A duration: a timedelta, a text such as ``1h30m``, or seconds."""
PolicyLike = Mapping[str, object] | str | os.PathLike[str]
"""A policy document: a mapping, a JSON text, or the path of a file. A text that begins with ``{`` is JSON."""

_PACKAGE: Final = "lessor.v1"
M = TypeVar("M", bound=Message)


def span(value: DurationLike) -> timedelta:
    """Return a duration as a timedelta; raises ``InvalidValue`` if it can't be one."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return values.duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"{value!r} is not a duration; write a timedelta, 1h30m or seconds")
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise InvalidValue(f"{value!r} seconds are not a duration; give less") from None


def policy(value: PolicyLike) -> Struct:
    """Return a policy document as the protocol's JSON object; raises ``InvalidValue`` if it can't be one."""
    if isinstance(value, Mapping):
        found = values.document(cast("Mapping[str, JsonValue]", value))
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        found = values.document(value)
    elif isinstance(value, str | os.PathLike):
        found = values.document(f"@{os.fspath(value).removeprefix('@')}")
    else:
        raise InvalidValue(f"a {type(value).__name__} is not a policy; give a dict, JSON text or a path")
    made = Struct()
    try:
        made.update(found)
    except (ValueError, TypeError, ParseError) as error:
        raise InvalidValue(f"the policy contains a value that JSON does not have: {error}") from None
    return made


def build_request(kind: type[M], fields: Mapping[str, object]) -> M:
    """Return a request with these fields; those of the one message that it holds are named directly.

    A field that is None is not set.

    Raises:
        InvalidValue: A value can't be converted to the type of its field; the text begins with its name.
    """
    request = kind()
    inner = _wrapped(request)
    for name, value in fields.items():
        if value is None:
            continue
        target: Message = request
        if inner and name not in request.DESCRIPTOR.fields_by_name:
            target = getattr(request, inner)
            target.SetInParent()
        try:
            _set(target, name, value)
        except InvalidValue as wrong:
            raise InvalidValue(f"{name}: {wrong}") from None
        except (TypeError, ValueError, AttributeError) as error:
            problem = "has the wrong type" if name in SECRET_FIELDS else error
            raise InvalidValue(f"{name}: {problem}; give a value of the type that the method names") from None
    return request


def _wrapped(request: Message) -> str:
    """Return the name of the one message that a request holds; empty if it holds none."""
    return next(
        (
            field.name
            for field in request.DESCRIPTOR.fields
            if field.message_type and field.message_type.file.package == _PACKAGE and not field.is_repeated
        ),
        "",
    )


def _set(message: Message, name: str, value: object) -> None:
    field, current = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
    kind = field.message_type.full_name if field.message_type else ""
    if kind == FieldMask.DESCRIPTOR.full_name:
        current.paths.extend(_items(value))
        current.SetInParent()
    elif kind == Duration.DESCRIPTOR.full_name:
        current.FromTimedelta(span(cast("DurationLike", value)))
    elif kind == Struct.DESCRIPTOR.full_name:
        current.CopyFrom(policy(cast("PolicyLike", value)))
        current.SetInParent()
    elif field.message_type and field.message_type.GetOptions().map_entry:
        current.update(value)
    elif field.message_type:
        for item in _items(value):
            current.append(item) if isinstance(item, Message) else current.add(**dict(_pairs(item)))
    elif field.is_repeated:
        current.extend(_items(value))
    elif field.enum_type and isinstance(value, str):
        setattr(message, name, _number({one.name: one.number for one in field.enum_type.values}, value))
    else:
        setattr(message, name, value)


def _items(value: object) -> Iterable[object]:
    """Return the items of a list; a text would be a list of its characters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidValue("is not a list; write [value]")
    return value


def _pairs(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f"a {type(value).__name__} is not a message; give a dict of its fields")
    return value


def _number(known: Mapping[str, int], name: str) -> int:
    """Return the number of an enum's value by its name, in any case."""
    if name.upper() not in known:
        names = ", ".join(one for one in known if one != "UNSPECIFIED")
        raise InvalidValue(f"{name!r} is not known; use one of {names}")
    return known[name.upper()]
