"""The formats of responses for programs: JSON, YAML, and the raw value of one field."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from lessor import values
from lessor.cli import output
from lessor.cli.styles import JSON, YAML
from lessor.values import JsonValue

STRUCTURED: Final = frozenset({JSON, YAML})
_INTEGERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


def as_mapping(answer: Message, lists: Iterable[str] = (), *, zeros: bool = False) -> dict[str, JsonValue]:
    """Return a message by protobuf's JSON mapping, with the field names of the proto files.

    Args:
        answer: The message.
        lists: Names of its lists that are included when they are empty, as ``[]``.
        zeros: Whether its own integer fields are included when they are 0.
    """
    found: dict[str, JsonValue] = MessageToDict(answer, preserving_proto_field_name=True)
    for name in lists:
        found.setdefault(name, [])
    if zeros:
        for field in answer.DESCRIPTOR.fields:
            if field.cpp_type in _INTEGERS and not field.is_repeated:
                found.setdefault(field.name, 0)
    return found


def show_structured(content: Mapping[str, JsonValue], style: str) -> None:
    """Print a response as JSON or YAML."""
    click.echo(yaml_text(content).rstrip("\n") if style == YAML else json.dumps(content, indent=2))


def show_streamed(content: Mapping[str, JsonValue], style: str) -> None:
    """Print one message of a stream: JSON on one line, or one YAML document."""
    click.echo(f"---\n{yaml_text(content)}".rstrip("\n") if style == YAML else json.dumps(content))


def yaml_text(content: Mapping[str, JsonValue]) -> str:
    """Return a mapping as YAML, in the order of its keys."""
    import yaml  # noqa: PLC0415 - other formats do not need it

    from lessor.cli.yaml_files import CoreDumper  # noqa: PLC0415 - it needs yaml

    # ASCII, as JSON: other characters could control the terminal.
    text: str = yaml.dump(content, Dumper=CoreDumper, sort_keys=False, allow_unicode=False, width=1_000_000)
    return text


def field_of(name: str, *messages: Message) -> str:
    """Return the raw value of a field, which is that of the first message that has a field of this name.

    Strings are as they are, times as in RFC 3339, durations as ``3600s``, documents as JSON; a list has one
    line for each item. A field without a value is empty.

    Raises:
        UsageError: No message has the field.
    """
    for message in messages:
        if name in message.DESCRIPTOR.fields_by_name:
            whole = MessageToDict(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            return raw(whole.get(name, ""))
    raise unknown_field(name, (field.name for message in messages for field in message.DESCRIPTOR.fields))


def value_of(name: str, content: Mapping[str, JsonValue]) -> str:
    """Return the raw value of a key; raises ``UsageError`` if there is no such key."""
    if name not in content:
        raise unknown_field(name, content)
    return raw(content[name])


def unknown_field(name: str, known: Iterable[str]) -> click.UsageError:
    """Return the error for a ``--field`` that the response does not have."""
    return click.UsageError(f"--field: the response has no field {name!r}; its fields: {', '.join(known)}")


def show_raw(text: str) -> None:
    """Print a raw value; at a terminal what could control that is escaped."""
    click.echo("\n".join(map(output.plain, text.split("\n"))) if sys.stdout.isatty() else text)


def raw(value: JsonValue) -> str:
    """Return a value as a script takes it: no quotes, and a line for each item of a list."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case list():
            return "\n".join(raw(item) for item in value)
        case dict():
            return values.policy_text(value)
        case _:
            return str(value)
