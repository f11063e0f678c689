"""Prints responses for people: tables, pairs of a name and a text, warnings and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Final

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from lessor import values

_UNBOUND: Final = 100_000
"""A width at which no line wraps: a wrapped key can't be copied."""


def show_line(message: Message, columns: Sequence[str]) -> None:
    """Print the fields that ``columns`` names on one line, and flush it: for the messages of a stream."""
    click.echo("  ".join(filter(None, (cell(message, column) for column in columns))))


def show_fields(message: Message, leave_out: Iterable[str] = ()) -> None:
    """Print each field of a message that has a value, one a line; booleans are always printed."""
    show_pairs({name: text for name, text in fields(message).items() if name not in leave_out})


def fields(message: Message) -> dict[str, str]:
    """Return the fields of a message that have a value, formatted for people."""
    cells = ((field.name, cell(message, field.name)) for field in message.DESCRIPTOR.fields)
    return {name: text for name, text in cells if text}


def numbers(message: Message) -> dict[str, str]:
    """Return the integer fields of a message, including those that are zero."""
    kinds = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    whole = (field.name for field in message.DESCRIPTOR.fields if field.cpp_type in kinds)
    return {name: str(getattr(message, name)) for name in whole}


def show_pairs(pairs: Mapping[str, str]) -> None:
    """Print one line for each name with its text."""
    # Imported here because it takes time, and JSON output does not need it.
    from rich.table import Table  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    for name, text in pairs.items():
        table.add_row(name, text)
    if table.row_count:
        _print(table)


def show_rows(messages: Iterable[Message], columns: Sequence[str]) -> None:
    """Print the fields that ``columns`` names: one line a message, or one block if the lines are too long."""
    show_cells([[cell(message, column) for column in columns] for message in messages], columns)


def show_cells(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Print a table of texts, or one block for each row if the lines are too long for the terminal.

    No line wraps, because a wrapped id can't be copied. A pipe gets lines of any length.
    """
    if sys.stdout.isatty() and _width([columns, *rows]) > get_terminal_size().columns:
        for number, row in enumerate(rows):
            if number:
                click.echo()
            show_pairs({column: text for column, text in zip(columns, row, strict=True) if text})
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _print(table)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Return the width of a table of these rows: the widest cell of each column, and two blanks between."""
    from rich.cells import cell_len  # noqa: PLC0415

    widths = (
        max(cell_len(line) for text in column for line in text.split("\n"))
        for column in zip(*rows, strict=True)
    )
    return sum(widths) + 2 * (len(rows[0]) - 1)


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        click.echo(f"lessor: warning: {plain(warning)}", err=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that prints progress on standard error; at a terminal it overwrites one line."""
    printed, terminal = False, sys.stderr.isatty()

    def show(text: str) -> None:
        nonlocal printed
        printed = True
        click.echo(f"\r\x1b[Klessor: {text}" if terminal else f"lessor: {text}", nl=not terminal, err=True)

    try:
        yield show
    finally:
        if printed and terminal:
            click.echo(err=True)


def cell(message: Message, name: str) -> str:
    """Return a field formatted for people; empty if it has no value."""
    field, value = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
    names = {one.number: one.name for one in field.enum_type.values} if field.enum_type else {}
    if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
        return "\n".join(plain(f"{key}={value[key]}") for key in sorted(value))
    if field.is_repeated:
        return "\n".join(_one(item, names) for item in value)
    if field.has_presence:
        return _one(value, names) if message.HasField(name) else ""
    return _one(value, names) if value or isinstance(value, bool) else ""


def plain(text: str) -> str:
    """Return a text on one line, with those characters escaped that could control a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _one(value: object, names: Mapping[int, str]) -> str:
    """Return one value; ``names`` are those of its enum."""
    match value:
        case Duration():
            return values.written(value.ToTimedelta())
        case Timestamp():
            return f"{value.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
        case Struct():
            return plain(values.policy_text(MessageToDict(value)))
        case Message():
            parts = ((part.name, cell(value, part.name)) for part in value.DESCRIPTOR.fields)
            return " ".join(f"{name}={text}" for name, text in parts if text)
        case bool():
            return "yes" if value else "no"
        case int() if names:
            return names.get(value, str(value))
        case _:
            return plain(str(value))


def _print(table: object) -> None:
    from rich.console import Console  # noqa: PLC0415

    console = Console(width=_UNBOUND, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
