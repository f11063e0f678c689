"""Options whose values become fields of a message; an option has the name of its field.

An empty value clears a field: ``--policy-arn ''`` with ``--update`` removes all policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from lessor import values
from lessor.v1 import config_pb2

EMPTY: Final = ("", ("",))
Command = Callable[..., "int | None"]


if TYPE_CHECKING:
    ParamType = click.ParamType[object]
else:
    ParamType = click.ParamType  # not generic in older versions of click


class Reading(ParamType):
    """Parses an option's text with a function; an error of the function is a usage error."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        """Use ``read``, which raises ``ValueError``, to parse; the help shows ``name``."""
        self.name = name
        self._read = read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return the value of a text; an empty text is returned unchanged, and clears the field."""
        if not isinstance(value, str) or value == "":
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise values.InvalidValue(f"{text!r} is not a valid tag; write KEY=VALUE")
    return key, value


def _step(text: str) -> config_pb2.AssumeStep:
    role_arn, _, external_id = text.partition(",")
    return config_pb2.AssumeStep(role_arn=role_arn, external_id=external_id)


def _document(text: str) -> Struct:
    made = Struct()
    made.update(values.document(text))
    return made


DURATION: Final = Reading("duration", values.duration)
DOCUMENT: Final = Reading("json|@file|-", _document)
SECRET: Final = Reading("@file|-", values.secret)
TAG: Final = Reading("key=value", _tag)
ASSUME_STEP: Final = Reading("role_arn[,external_id]", _step)

_OF_A_SESSION: Final = (
    click.option("--session-policy", type=DOCUMENT, help="An IAM policy that restricts this session."),
    click.option("--mfa-code", type=SECRET, help="Current code of the MFA device."),
    click.option("role_session_name", "--session-name", "--role-session-name", help="Name of the session."),
    click.option("--role-arn", help="Which of the role's ARNs to assume."),
)
"""In reverse order, as decorators are applied."""


def session_options(command: Command) -> Command:
    """Add the options for one STS session to a command."""
    for option in _OF_A_SESSION:
        command = option(command)
    return command


def given(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None and value != ()}


def duration_of(value: object, option: str) -> timedelta | None:
    """Return the duration of an option; None if it was not given.

    Raises:
        UsageError: It is an empty text.
    """
    if value is not None and not isinstance(value, timedelta):
        raise click.UsageError(f"{option} is empty; give a duration such as 1h")
    return value


def mask(made: FieldMask, fields: Mapping[str, object]) -> None:
    """Add each field to change, except the etag, to the mask.

    Raises:
        UsageError: There is none. The server would read an empty mask as a change of all fields.
    """
    paths = [name for name in fields if name != "etag"]
    if not paths:
        raise click.UsageError("Nothing to change: give one of the options.")
    made.paths.extend(paths)


def fill(message: Message, fields: Mapping[str, object]) -> None:
    """Set the fields of ``message`` to the values with the same names; an empty value sets nothing."""
    for name, value in fields.items():
        if value in EMPTY:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, tuple) and field.message_type and field.message_type.GetOptions().map_entry:
            getattr(message, name).update(_once(name, value))
        elif isinstance(value, tuple):
            getattr(message, name).extend(value)
        elif field.message_type and field.message_type.full_name == "google.protobuf.Duration":
            getattr(message, name).FromTimedelta(value)
        elif isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
            getattr(message, name).SetInParent()
        elif field.enum_type:
            setattr(message, name, field.enum_type.values_by_name[str(value)].number)
        else:
            setattr(message, name, value)


def _once(name: str, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise click.UsageError(f"{name}: a key is given twice; keep one of them")
    return found
