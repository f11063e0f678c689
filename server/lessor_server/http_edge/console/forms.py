"""Controls of a form: each is one field of a message, typed as text.

A form is a tuple of ``Control``. ``fill`` makes a message of what was typed, and ``typed_of`` the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from lessor import values
from lessor_server.http_edge.console import documents

_MAX_INT32: Final = 2**31 - 1


class ControlKind(Enum):
    """How a control is shown, and how its text is parsed."""

    TEXT = "text"
    SECRET = "secret"
    DURATION = "duration"
    INTEGER = "integer"
    CHECKBOX = "checkbox"
    CHOICE = "choice"
    LINES = "lines"
    """A list: one item a line."""
    PAIRS = "pairs"
    """A map: one KEY=VALUE a line."""
    STEPS = "steps"
    """Roles to assume: one ARN a line, and after a comma its external id."""
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Control:
    """One control of a form; ``name`` is that of the message's field.

    ``only`` are the values of the form's choice for which the control is used; empty: for all.
    """

    name: str
    label: str
    kind: ControlKind = ControlKind.TEXT
    hint: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    required: bool = False
    placeholder: str = ""


@dataclass(frozen=True, slots=True)
class FormProblem:
    """What is wrong with a form; ``field`` is a control's name, or empty for the whole form.

    ``line`` is that of a document, from 1; 0 if the problem has none.
    """

    field: str
    text: str
    line: int = 0


def fill_form(message: Message, controls: Iterable[Control], typed: Mapping[str, str]) -> list[FormProblem]:
    """Set the fields of ``message`` from what was typed; return what can't be parsed."""
    problems = []
    for control in controls:
        text = typed.get(control.name, "")
        if control.kind is not ControlKind.SECRET:
            text = text.strip()
        if not text:
            continue
        try:
            _set(message, control, text)
        except documents.NotADocument as error:
            problems.append(FormProblem(control.name, str(error), error.line))
        except ValueError as error:
            problems.append(FormProblem(control.name, str(error)))
    return problems


def typed_of(message: Message, controls: Iterable[Control]) -> dict[str, str]:
    """Return what a person would type to get the fields of ``message``; a secret is never among them."""
    return {
        control.name: _text_of(message, control)
        for control in controls
        if control.kind is not ControlKind.SECRET
    }


def without_secrets(typed: Mapping[str, str], controls: Iterable[Control]) -> dict[str, str]:
    """Return what was typed, to show it again: all but secrets."""
    secret = {control.name for control in controls if control.kind is ControlKind.SECRET}
    return {name: text for name, text in typed.items() if name not in secret}


def known_controls(controls: Sequence[Control], message: type[Message]) -> tuple[Control, ...]:
    """Return the controls for which ``message`` has a field."""
    return tuple(one for one in controls if one.name in message.DESCRIPTOR.fields_by_name)


def _set(message: Message, control: Control, text: str) -> None:
    name = control.name
    target = getattr(message, name)
    match control.kind:
        case ControlKind.DURATION:
            target.FromTimedelta(values.duration(text))
        case ControlKind.INTEGER:
            setattr(message, name, _integer(text))
        case ControlKind.CHECKBOX:
            setattr(message, name, True)
        case ControlKind.CHOICE:
            setattr(message, name, _number(message, name, text))
        case ControlKind.LINES:
            target.extend(_lines(text))
        case ControlKind.PAIRS:
            target.update(_pairs(text))
        case ControlKind.STEPS:
            for line in _lines(text):
                arn, _, external_id = line.partition(",")
                target.add(role_arn=arn.strip(), external_id=external_id.strip())
        case ControlKind.JSON:
            target.update(documents.parse_json_text(text))
        case ControlKind.TEXT | ControlKind.SECRET:
            setattr(message, name, text)


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10 and int(digits) <= _MAX_INT32):
        raise ValueError("is not a whole number in range; write digits only")
    return int(text)


def _number(message: Message, name: str, text: str) -> int | str:
    """Return the number of an enum's value; a choice of texts stays a text."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    if enum is None:
        return text
    if text not in enum.values_by_name:
        raise ValueError("is not one of the choices; choose one of the list")
    return enum.values_by_name[text].number


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in _lines(text):
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"{line[:64]!r} is not a pair; write KEY=VALUE, one a line")
        if key.strip() in found:
            raise ValueError(f"{key.strip()[:64]!r} is there twice; keep one of them")
        found[key.strip()] = value.strip()
    return found


def _text_of(message: Message, control: Control) -> str:
    field = message.DESCRIPTOR.fields_by_name[control.name]
    if field.has_presence and not message.HasField(control.name):
        return ""
    value = getattr(message, control.name)
    match control.kind:
        case ControlKind.DURATION:
            span = cast("Duration", value)
            return values.written(span.ToTimedelta()) if span.ToNanoseconds() else ""
        case ControlKind.CHECKBOX:
            return "on" if value else ""
        case ControlKind.CHOICE if field.enum_type is not None:
            return field.enum_type.values_by_number[value].name if value else ""
        case ControlKind.LINES:
            return "\n".join(value)
        case ControlKind.PAIRS:
            return "\n".join(f"{key}={value[key]}" for key in sorted(value))
        case ControlKind.STEPS:
            return "\n".join(f"{one.role_arn}, {one.external_id}".rstrip(", ") for one in value)
        case ControlKind.JSON:
            return values.policy_text(MessageToDict(value), indent=2)
        case ControlKind.INTEGER:
            return str(value) if value or field.has_presence else ""
        case _:
            return str(value)
