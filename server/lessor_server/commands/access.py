"""``lessor access``: checks of access files, without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lessor_server.commands.cli_errors import FAILED
from lessor_server.settings.access_file import load_access_file
from lessor_server.settings.sources import SettingsError


@click.group("access")
def command() -> None:
    """Check access files."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE as the server would, and print its problems, one a line."""
    try:
        rules = load_access_file(file)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem)
        sys.exit(FAILED)
    counts = ((rules.identities, "identities"), (rules.policies, "policies"), (rules.issuers, "issuers"))
    click.echo("ok: " + ", ".join(f"{len(found)} {name}" for found, name in counts))
