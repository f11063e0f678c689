"""``lessor version``: the version of this program."""

from __future__ import annotations

import click

import lessor
from lessor.cli.command import format_option
from lessor.cli.styles import EVERYWHERE, TABLE, chosen_style


@click.command("version")
@format_option()
def version(style: str | None) -> None:
    """Show the version of this program; `lessor info` shows that of the server."""
    style = chosen_style(style, EVERYWHERE)
    if style == TABLE:
        click.echo(f"lessor {lessor.__version__}")
    else:
        from lessor.cli.formats import show_structured  # noqa: PLC0415 - protobuf takes its time to load

        show_structured({"version": lessor.__version__}, style)
