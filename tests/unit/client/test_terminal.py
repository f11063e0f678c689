"""Checks that no text of a server can control the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from datetime import timedelta

import click
import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from lessor import errors
from lessor.cli import output
from lessor.cli.call import Failed, describe
from lessor.cli.formats import as_mapping, show_streamed, show_structured
from lessor.cli.key_formats import written_key
from lessor.cli.styles import JSON, OF_KEYS, YAML
from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2

CONTROLS = "".join(map(chr, (*range(0x20), 0x7F, *range(0x80, 0xA0))))
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
OTHERS = "\u2028\u2029\u200b\ufeff\U000e0041"
EVIL = f"a{CONTROLS}{BIDI}{OTHERS}\x1b]0;title\x07\nFORGED line\rFORGED again"


def filled(message: Message, depth: int = 0) -> Message:
    """Return the message with something evil in each text that it can hold, at every depth."""
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            getattr(message, field.name).update({EVIL: EVIL})
        elif kind is not None and kind.full_name.startswith("google.protobuf.") and kind.name != "Struct":
            continue
        elif kind is not None and kind.name == "Struct":
            getattr(message, field.name).CopyFrom(_struct())
        elif kind is not None and depth < 3:
            part = getattr(message, field.name)
            filled(part.add() if field.is_repeated else part, depth + 1)
        elif field.type == FieldDescriptor.TYPE_STRING:
            value = [EVIL, EVIL] if field.is_repeated else EVIL
            message.MergeFrom(type(message)(**{field.name: value}))
    return message


def _struct() -> Struct:
    made = Struct()
    made.update({EVIL: [EVIL, {"a": EVIL}]})
    return made


def answers() -> Iterator[Message]:
    """Yield an evil answer of every method."""
    for module in (config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield filled(getattr(module, method.output_type.name)())


SHOWN: dict[str, Callable[[Message], None]] = {
    "fields": output.show_fields,
    "rows": lambda answer: output.show_rows([answer], list(answer.DESCRIPTOR.fields_by_name)),
    "line": lambda answer: output.show_line(answer, list(answer.DESCRIPTOR.fields_by_name)),
    "json": lambda answer: show_structured(as_mapping(answer), JSON),
    "yaml": lambda answer: show_structured(as_mapping(answer), YAML),
    "json line": lambda answer: show_streamed(as_mapping(answer), JSON),
    "yaml document": lambda answer: show_streamed(as_mapping(answer), YAML),
    "warnings": lambda answer: output.warn(list(getattr(answer, "warnings", [EVIL]))),
}


def harmless(shown: str) -> bool:
    """Tell whether a text holds nothing but what is seen, and lines that are our own."""
    lines = shown.split("\n")
    seen = all(unicodedata.category(sign)[0] not in "CZ" or sign == " " for line in lines for sign in line)
    return seen and not any(line.strip().startswith("FORGED") for line in lines)


@pytest.mark.parametrize("way", SHOWN)
def test_an_answer_cannot_control_the_terminal(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither control characters nor bidirectional overrides nor line breaks are printed."""
    for answer in answers():
        SHOWN[way](answer)
        captured = capsys.readouterr()
        assert harmless(captured.out + captured.err)


def test_an_error_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.Invalid(
        EVIL,
        grpc.StatusCode.INVALID_ARGUMENT,
        reason_name=EVIL,
        violations=(errors.Violation(EVIL, EVIL, EVIL),),
        retry_after=timedelta(seconds=1),
        aws_code=EVIL,
    )
    Failed(describe(error), 1).show()
    shown = capsys.readouterr().err
    assert harmless(shown)
    assert "reason: a\\x00" in shown
    assert len(shown.splitlines()) == 5


@pytest.mark.parametrize("style", OF_KEYS)
@pytest.mark.parametrize("place", range(3))
def test_exports_of_malformed_credentials_are_refused(place: int, style: str) -> None:
    """A value with a control character can't be quoted safely for each shell."""
    given = ["A", "B", "C"]
    given[place] = EVIL
    with pytest.raises(click.ClickException):
        written_key(style, *given)
