"""Messages as mappings that people write: durations as ``1h30m``, enums by name, no empty fields."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from lessor import values
from lessor.values import InvalidValue, JsonValue

_INTEGERS: Final = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


def plain_of(message: Message, leave_out: Container[str] = ()) -> dict[str, JsonValue]:
    """Return the fields of a message that have a value, in the order of the proto file."""
    found: dict[str, JsonValue] = {}
    for field in message.DESCRIPTOR.fields:
        if field.name in leave_out or (field.has_presence and not message.HasField(field.name)):
            continue
        if value := _plain(cast("FieldDescriptor", field), getattr(message, field.name)):
            found[field.name] = value
    return found


def _plain(field: FieldDescriptor, value: Any) -> JsonValue:  # noqa: ANN401 - a field of any kind
    if field.message_type and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if field.is_repeated:
        return [plain_of(one) if isinstance(one, Message) else one for one in value]
    match value:
        case Duration():
            return values.written(value.ToTimedelta()) if value.ToNanoseconds() else ""
        case Struct():
            return normal_document(MessageToDict(value))
        case Message():
            return plain_of(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else cast("JsonValue", value)


def normal_document(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a policy as the server stores it: ``Statement`` is always a list."""
    statement = document.get("Statement")
    return {**document, "Statement": [statement]} if isinstance(statement, dict) else document


def fill_plain(
    message: Message, plain: JsonValue, path: str, problems: list[str], leave_out: Iterable[str] = ()
) -> None:
    """Set the fields of a message from a mapping, and add what is wrong with it to ``problems``.

    Args:
        message: What to fill.
        plain: The mapping, as ``plain_of`` returns it.
        path: Where it is in the file, as in ``mounts.aws.roles.reader``.
        problems: One line for each problem, with its path and fix.
        leave_out: Fields that the mapping can't set.
    """
    fields = {name: one for name, one in message.DESCRIPTOR.fields_by_name.items() if name not in leave_out}
    if not isinstance(plain, dict):
        problems.append(f"{path}: is not a mapping; write its fields below it")
        return
    for name, value in plain.items():
        if name not in fields:
            likely = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {likely[0]}?" if likely else f"the fields are {', '.join(fields)}"
            problems.append(f"{path}.{name}: is not a known field; {hint}")
        elif value is not None:
            _fill_field(message, cast("FieldDescriptor", fields[name]), value, f"{path}.{name}", problems)


def _fill_field(
    message: Message, field: FieldDescriptor, value: JsonValue, path: str, problems: list[str]
) -> None:
    target = getattr(message, field.name)
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    try:
        if is_map:
            target.update({str(key): _text(one) for key, one in _mapping(value).items()})
        elif field.is_repeated:
            for number, one in enumerate(_list(value)):
                if field.message_type:
                    fill_plain(target.add(), one, f"{path}[{number}]", problems)
                else:
                    target.append(_text(one))
        elif isinstance(target, Duration):
            target.FromTimedelta(values.duration(_text(value)))
        elif isinstance(target, Struct):
            document = value if isinstance(value, dict) else _json_text(value)
            target.update(values.document(document))
        elif isinstance(target, Message):
            fill_plain(target, value, path, problems)
        else:
            setattr(message, field.name, _scalar(field, value))
    except InvalidValue as wrong:
        problems.append(f"{path}: {wrong}")


def _scalar(field: FieldDescriptor, value: JsonValue) -> str | int | bool:
    if field.enum_type:
        names = [one.name for one in field.enum_type.values if one.number]
        name = str(value).upper()
        if name not in names:
            raise InvalidValue(f"{value!r} is not one of its values; write one of {', '.join(names)}")
        return field.enum_type.values_by_name[name].number
    if field.cpp_type in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
            raise InvalidValue(f"{value!r} is not a whole number in range; write one without quotes")
        return value
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise InvalidValue(f"{value!r} is not true or false")
        return value
    return _text(value)


def _text(value: JsonValue) -> str:
    if isinstance(value, bool | float | dict | list) or value is None:
        raise InvalidValue(f"{value!r} is not a text; put it in quotes")
    return str(value)


def _json_text(value: JsonValue) -> str:
    text = _text(value)
    if not text.lstrip().startswith("{"):
        raise InvalidValue("is neither a mapping nor the JSON text of one; write the document below it")
    return text


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise InvalidValue("is not a mapping; write KEY: VALUE below it")
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise InvalidValue("is not a list; write its items below it, each after a -")
    return value
