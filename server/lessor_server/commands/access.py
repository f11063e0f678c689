"""``lessor access``: checks of access files, without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lessor_server.commands.cli_errors import FAILED
from lessor_server.domain.access.rule_warnings import find_warnings
from lessor_server.services.permissions import path_shapes
from lessor_server.settings.access_file import load_access_file
from lessor_server.settings.sources import SettingsError


@click.group("access")
def command() -> None:
    """Check access files."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE as the server would, and print its problems, one a line.

    Warnings are about rules that are valid and have no effect, or not the one that they seem to have; with
    warnings alone the exit code is 0.
    """
    try:
        rules = load_access_file(file)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem)
        sys.exit(FAILED)
    counts = (
        _counted(len(rules.identities), "identity", "identities"),
        _counted(len(rules.policies), "policy", "policies"),
        _counted(len(rules.issuers), "issuer", "issuers"),
    )
    click.echo(f"ok: {', '.join(counts)}")
    for warning in find_warnings(rules, path_shapes()):
        click.echo(f"warning: {warning}", err=True)


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
