"""Common parts of the commands that call the server: their options, and the ``Call`` that they receive.

A command is one function:

    @role.command("get")
    @click.argument("name")
    @mount_option
    @calling()
    def get(call: Call, mount: str, name: str) -> None:
        ...
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

import click

from lessor import values
from lessor.cli import contexts
from lessor.cli.completing import complete_mount
from lessor.cli.styles import EVERYWHERE, chosen_style

if TYPE_CHECKING:
    from lessor.cli.call import Call

Command = Callable[..., "int | None"]
DEFAULT_SECONDS: Final = 60.0
LONG_SECONDS: Final = 3600.0
"""The timeout of calls that wait for AWS."""
FOR_EVER: Final = math.inf
"""The timeout of calls that last until the user interrupts them."""

LIVE: Final = frozenset({"INTENT", "ACTIVE", "REVOKING"})
"""The states of leases that have not ended."""

mount_option = click.option(
    "--mount", default="aws", show_default=True, help="The engine.", shell_complete=complete_mount
)
yes_option = click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")

_REACHING: Final = (
    click.option("--address", hidden=True),
    click.option("--token-file", hidden=True),
    click.option("--timeout", hidden=True),
    click.option("--context", hidden=True),
)
"""The options of ``lessor`` itself, which are also accepted after the command."""


def calling(*styles: str, seconds: float = DEFAULT_SECONDS) -> Callable[[Command], Command]:
    """Turn a function into a command: its first argument is a ``Call``, and it may return an exit code.

    Args:
        styles: Values of ``--format`` in addition to table, json and yaml.
        seconds: The timeout of each call if ``--timeout`` is not given.
    """
    allowed = (*EVERYWHERE, *styles)

    def decorate(function: Callable[..., int | None]) -> Command:
        @functools.wraps(function)
        def command(style: str | None, field: str | None, **options: object) -> int | None:
            names = ("address", "token_file", "timeout", "context")
            own = {name: options.pop(name) for name in names}
            reaching = {**click.get_current_context().obj, **{k: v for k, v in own.items() if v is not None}}
            contexts.adopt(os.environ, reaching)
            with _open(reaching, chosen_style(style, allowed), seconds, field or "") as call:
                return function(call, **options)

        made: Command = command
        shown = format_option(*styles)
        one = click.option("--field", metavar="NAME", help="Print only the raw value of one field.")
        for option in (*_REACHING, one, shown):
            made = option(made)
        return made

    return decorate


def format_option(*styles: str) -> Callable[[Command], Command]:
    """Return the option ``--format``, whose value is the argument ``style``, None if it is not given."""
    shape = click.Choice([*EVERYWHERE, *styles])
    return click.option("--format", "style", type=shape, help="Format of the output [LESSOR_FORMAT; table].")


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation at a terminal, unless ``yes``; without a terminal ask nothing.

    Raises:
        ClickException: The user declined.
    """
    if yes or not sys.stdin.isatty():
        return
    if not click.confirm(question, err=True):
        raise click.ClickException("not confirmed; nothing was done")


def confirm_leases(
    call: Call,
    question: str,
    prefix: str,
    states: Container[str],
    *,
    yes: bool,
    without: str = "",
    owner: str = "",
) -> bool:
    """Ask ``question``, with the number of leases under ``prefix`` in these ``states`` in place of ``{}``.

    With an ``owner`` only its leases count. If there are none, report that, ask only ``without``, the
    question about the other effects of the command, and return False.

    Raises:
        ClickException: The user declined.
    """
    if yes or not sys.stdin.isatty():
        return True
    from lessor.cli.call import DENIED, Failed  # noqa: PLC0415 - gRPC takes its time to load
    from lessor.v1 import lease_pb2 as pb  # noqa: PLC0415

    try:
        counts = call(call.leases.CountLeases, pb.CountLeasesRequest(prefix=prefix, owner=owner)).counts
    except Failed as error:
        if error.exit_code != DENIED:
            raise
        which = f"all leases of {owner}" if owner else "all leases"  # counting may be denied
    else:
        of_whom = f" of {owner}" if owner else ""
        number = sum(one.count for one in counts if pb.Lease.State.Name(one.state) in states)
        if not number:
            check = "; check the owner's name, and every mount" if owner else ""
            click.echo(f"lessor: 0 leases{of_whom} under {prefix} are affected{check}", err=True)
            if without:
                confirm(without, yes=yes)
            return False
        which = "1 lease" if number == 1 else f"{number} leases"
        which += of_whom
    confirm(question.format(which), yes=yes)
    return True


def _open(reaching: dict[str, str], style: str, seconds: float, field: str) -> Call:
    # gRPC's own log lines would mix with the command's output.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lessor.cli.call import Call  # noqa: PLC0415 - gRPC takes its time to load; help needs none of it

    if "timeout" in reaching:
        try:
            seconds = values.duration(reaching["timeout"]).total_seconds()
        except values.InvalidValue as wrong:
            raise click.UsageError(f"--timeout: {wrong}") from None
    return Call(reaching.get("address"), reaching.get("token_file"), seconds, style, field)
