"""``lessor``: finds the command, runs it, and exits with a code that scripts can use.

Exit codes:
    0   done
    1   refused, or failed (also: an unhealthy server, a revocation whose first attempt failed, a `no`)
    2   usage error
    3   revoke: the server does not know the lease
    4   not authenticated, or not permitted
    5   not found
    6   server unreachable, deadline exceeded, or busy: retry
    7   failed precondition: already exists, etag mismatch, no root yet
    130 interrupted

To keep the start fast, the module of a command is imported when the command is named, gRPC when it calls, and
the server's commands (entry points ``lessor.commands``) only when they run.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, NoReturn, cast

import click

from lessor.cli import hang_ups

INTERRUPTED: Final = 130
JOINED: Final = "lessor.commands"

OWN: Final = {
    "enable": "mounts",
    "tune": "mounts",
    "mounts": "mounts",
    "disable": "mounts",
    "config": "config",
    "role": "role",
    "creds": "creds",
    "console": "console",
    "static-role": "static_role",
    "static-creds": "static_role",
    "rotate-root": "static_role",
    "lease": "lease",
    "watch": "watch",
    "reconcile": "reconcile",
    "expiry": "expiry",
    "reload": "system",
    "backup": "system",
    "info": "system",
    "whoami": "system",
    "health": "system",
    "token": "token",
}
"""Each command and the module of this package that holds it, under the command's name."""

EPILOG: Final = """
\b
Exit codes:
  0 done                       4 not authenticated or not permitted
  1 refused or failed          5 not found
  2 usage error                6 unreachable, deadline exceeded, busy: retry
  3 revoke: unknown lease      7 already exists, etag mismatch, not ready
  130 interrupted

\b
Write a document as JSON, as @FILE, or as - for standard input; write a secret
as @FILE or - only. Durations: 1h30m, 90s, 7d, or plain seconds.

\b
Completion:  eval "$(_LESSOR_COMPLETE=bash_source lessor)"   (or zsh_source,
             _LESSOR_COMPLETE=fish_source lessor | source)
"""


class Joined(click.Command):
    """A placeholder for another package's command, so that the package is imported only when it is run."""

    def __init__(self, name: str, place: str) -> None:
        """Name the command and its ``place``, written ``module:attribute``."""
        module, _, self._attribute = place.partition(":")
        self._module = module
        super().__init__(name, help=_first_words(module))

    def load(self) -> click.Command:
        """Import the command; raises ``ClickException`` if its libraries are not installed."""
        try:
            return cast("click.Command", getattr(importlib.import_module(self._module), self._attribute))
        except ModuleNotFoundError as error:
            message = f"`lessor {self.name}` needs {error.name}; install lessor[server], or lessor[dev]"
            raise click.ClickException(message) from None


class Commands(click.Group):
    """The client's own commands, and those that other packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the client's own commands in the order of their use, then the installed added ones."""
        joined = (name for name, place in _joined().items() if _is_there(place.partition(":")[0]))
        return [*OWN, *super().list_commands(ctx), *joined]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or a placeholder for an added one."""
        if cmd_name in OWN:
            module = importlib.import_module(f"lessor.cli.{OWN[cmd_name]}")
            return cast("click.Command", getattr(module, cmd_name.replace("-", "_")))
        place = _joined().get(cmd_name)
        return Joined(cmd_name, place) if place else super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        hang_ups.settle(name)
        return name, command.load() if isinstance(command, Joined) else command, rest


def _joined() -> dict[str, str]:
    """Return the commands that installed packages add, each with its place."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads every installed package

    return {point.name: point.value for point in entry_points(group=JOINED)}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _first_words(module: str) -> str:
    """Return the first line of a module's docstring after its colon, without importing the module."""
    spec = find_spec(module) if _is_there(module) else None
    if spec is None or spec.origin is None:
        return ""
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not loaded for this alone
        line = (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]
    words = (line.partition(": ")[2] or line).strip("`")
    return words[:1].upper() + words[1:]


@click.group("lessor", cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--address", metavar="ADDRESS", help="Address of the server [LESSOR_ADDR; 127.0.0.1:50051].")
@click.option("--token-file", metavar="FILE", help="A file with your token [LESSOR_TOKEN_FILE].")
@click.option("--timeout", metavar="DURATION", help="Timeout of each call [1m; for long operations 1h].")
@click.version_option(package_name="lessor")
def root(**reaching: str | None) -> None:
    """Issue AWS credentials that expire, and manage their leases.

    These variables configure the connection: LESSOR_ADDR, LESSOR_TOKEN or LESSOR_TOKEN_FILE, LESSOR_CACERT,
    LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY. --token-file wins over LESSOR_TOKEN, which wins over
    LESSOR_TOKEN_FILE; a token wins over a certificate. The client uses TLS with https://, and for every
    address except loopback and unix:/PATH. With http:// it sends plaintext, even to another machine.
    """
    click.get_current_context().obj = {name: value for name, value in reaching.items() if value is not None}


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed on standard error."""
    try:
        result = root.main(list(arguments), prog_name="lessor", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("lessor: interrupted", err=True)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
