"""Asks at a terminal for the role that a command was not given: a list, and text that filters it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from lessor.v1 import role_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

MAX_SHOWN: Final = 20


def pick_role(call: Call, mount: str) -> str:
    """Return the role that the user chooses among those of a mount.

    Raises:
        UsageError: There is no terminal to ask at.
        ClickException: There are no roles, or the user may not list them.
    """
    require_terminal()
    listed = call.all(call.roles.ListRoles, pb.ListRolesRequest(mount=mount))
    names = [role.name for role in listed.roles]
    if not names:
        raise click.ClickException(f"mount {mount} has no roles; create one with `lessor role put`")
    return choose(names)


def require_terminal() -> None:
    """Raise ``UsageError`` if nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("Missing argument 'ROLE'.")


def choose(names: Sequence[str]) -> str:
    """Show names, and ask for a number, a name, or a part of a name until one is left."""
    shown = list(names)
    while len(shown) != 1:
        for number, name in enumerate(shown[:MAX_SHOWN], 1):
            click.echo(f"{number:3}  {name}", err=True)
        if len(shown) > MAX_SHOWN:
            click.echo(f"     and {len(shown) - MAX_SHOWN} more; type a part of the name", err=True)
        text = str(click.prompt("Role (number or part of the name)", err=True)).strip()
        if text in names:
            return text
        if text.isdecimal() and 0 < int(text) <= min(len(shown), MAX_SHOWN):
            return shown[int(text) - 1]
        found = [name for name in names if text.lower() in name.lower()]
        if not found:
            click.echo(f"No role has {text!r} in its name.", err=True)
        shown = found or list(names)
    click.echo(f"Role {shown[0]}", err=True)
    return shown[0]
