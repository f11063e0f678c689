"""The connection of a command, its options and its messages; imports neither gRPC nor protobuf."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import click

from lessor import values
from lessor.channel import Connection
from lessor.cli import contexts

REACHING_OPTIONS: Final = ("address", "token_file", "timeout", "context")
"""The options of ``lessor`` itself, which are also accepted after a command."""

if TYPE_CHECKING:
    from lessor.leasing.clock import Clock

Command = Callable[..., "int | None"]


def get_clock() -> Clock:
    """Return the clock of a command: that of this machine, if the caller of the command passed no other."""
    from lessor.leasing.clock import SystemClock  # noqa: PLC0415 - help needs none of it

    found = click.get_current_context().obj or {}
    return cast("Clock", found.get("clock") or SystemClock())


def connection_of(address: str | None, token_file: str | None) -> Connection:
    """Return the connection that the options describe, else the environment."""
    connection = Connection.from_environ(os.environ)
    if address is not None:
        connection = replace(connection, address=address)
    if token_file is not None:
        connection = replace(connection, token="", token_file=Path(token_file))
    return connection


def reaching_options(command: Command) -> Command:
    """Add the options of ``lessor`` itself to a command."""
    for name in REACHING_OPTIONS:
        command = click.option(f"--{name.replace('_', '-')}", hidden=True)(command)
    return command


def reaching(options: dict[str, object]) -> tuple[Connection, float | None]:
    """Take the options of ``lessor`` itself out of ``options``; return the connection and the timeout.

    Raises:
        UsageError: The timeout is not a duration.
    """
    found: Mapping[str, object] = click.get_current_context().obj or {}
    given = {name: options.pop(name, None) for name in REACHING_OPTIONS}
    merged = {name: str(value) for name, value in (*found.items(), *given.items()) if value is not None}
    contexts.adopt(os.environ, merged)
    seconds = None
    if "timeout" in merged:
        try:
            seconds = values.duration(merged["timeout"]).total_seconds()
        except values.InvalidValue as wrong:
            raise click.UsageError(f"--timeout: {wrong}") from None
    return connection_of(merged.get("address"), merged.get("token_file")), seconds


def report(text: str) -> None:
    """Print a message on standard error, which may be a terminal that has hung up."""
    from lessor.cli.output import plain  # noqa: PLC0415 - protobuf takes its time to load

    with suppress(OSError):
        sys.stderr.write(f"lessor: {plain(text)}\n")
        sys.stderr.flush()
