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

import importlib
import keyword
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn, cast

import click

from lessor.cli import contexts, hang_ups, json_errors
from lessor.cli.completing import complete_context
from lessor.cli.joined import JoinedGroup
from lessor.cli.styles import JSON, TABLE

INTERRUPTED: Final = 130

OWN: Final = {
    "enable": "mounts",
    "tune": "mounts",
    "mounts": "mounts",
    "disable": "mounts",
    "config": "config",
    "role": "role",
    "creds": "creds",
    "exec": "exec",
    "aws-profile": "aws_profile",
    "cache": "cache",
    "agent": "agent",
    "container-credentials": "agent",
    "credential-process": "credential_process",
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
    "sealing": "sealing",
    "info": "system",
    "whoami": "system",
    "health": "system",
    "doctor": "doctor",
    "top": "top",
    "token": "token",
    "ui": "ui",
    "export": "declarations",
    "apply": "declarations",
    "import": "imports",
    "context": "context",
    "completion": "completion",
    "version": "version",
}
"""Each command and the module of this package that holds it, under the command's name."""

WITHOUT_SERVER: Final = frozenset(
    {
        *("completion", "context", "version", "token"),
        *("server", "dev", "demo", "access", "policy", "audit"),
    }
)
"""Commands for which no context is chosen: a broken file of contexts does not stop them."""

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
Completion:  eval "$(lessor completion bash)"
"""


class Commands(JoinedGroup):
    """The client's own commands, and those that other packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the client's own commands in the order of their use, then the installed added ones."""
        return [*OWN, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or a placeholder for an added one."""
        if cmd_name in OWN:
            module = importlib.import_module(f"lessor.cli.{OWN[cmd_name]}")
            name = cmd_name.replace("-", "_")
            return cast("click.Command", getattr(module, f"{name}_" if keyword.iskeyword(name) else name))
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run, imported."""
        found = super().resolve_command(ctx, args)
        hang_ups.settle(found[0])
        return found


@click.group("lessor", cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--address", metavar="ADDRESS", help="Address of the server [LESSOR_ADDR; 127.0.0.1:50051].")
@click.option(
    "--context",
    metavar="NAME",
    help="A server by its name in `lessor context` [LESSOR_CONTEXT].",
    shell_complete=complete_context,
)
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
    context = click.get_current_context()
    context.obj = {name: value for name, value in reaching.items() if value is not None}
    if context.invoked_subcommand not in WITHOUT_SERVER:
        contexts.adopt(os.environ, context.obj)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed on standard error."""
    try:
        result = root.main(list(arguments), prog_name="lessor", standalone_mode=False)
    except click.ClickException as error:
        json_errors.report(error, JSON if json_errors.wants_json(arguments, os.environ) else TABLE)
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
