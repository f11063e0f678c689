"""Errors as JSON on standard error, for commands with ``--format json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lessor.cli.styles import JSON, VARIABLE

if TYPE_CHECKING:
    from lessor.values import JsonValue

OPTION = "--format"


def wants_json(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether errors of a command line are printed as JSON.

    The arguments are read here because an error can also be in the arguments themselves. What follows ``--``
    belongs to another program.
    """
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    chosen = environ.get(VARIABLE, "")
    for word, following in zip(own, [*own[1:], ""], strict=True):
        if word == OPTION:
            chosen = following
        elif word.startswith(f"{OPTION}="):
            chosen = word.partition("=")[2]
    return chosen == JSON


def error_line(error: click.ClickException) -> str:
    """Return an error as one line of JSON: ``{"error": {"message": …, "exit_code": …, …}}``."""
    import json  # noqa: PLC0415 - only for this

    return json.dumps({"error": error_members(error)})


def error_members(error: click.ClickException) -> dict[str, JsonValue]:
    """Return an error as a mapping: its message, its exit code, and what the server said about it."""
    details: Mapping[str, JsonValue] | None = getattr(error, "details", None)
    return {**(details or {"message": error.format_message()}), "exit_code": error.exit_code}


def report(error: click.ClickException, style: str) -> None:
    """Print an error after which the command continues."""
    if style == JSON:
        click.echo(error_line(error), err=True)
    else:
        error.show()
