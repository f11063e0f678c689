"""``lessor doctor``: checks each step of the way to the server, and says what to fix."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from lessor.cli import contexts
from lessor.cli.command import format_option
from lessor.cli.styles import EVERYWHERE, TABLE, chosen_style


@click.command("doctor")
@click.option("--address", hidden=True)
@click.option("--token-file", hidden=True)
@click.option("--timeout", hidden=True)
@click.option("--context", hidden=True)
@format_option()
def doctor(style: str | None, **reaching: str | None) -> int:
    """Check the way to the server: variables, DNS, TCP, TLS, token, clock, versions.

    Each line begins with ok, warn or FAIL, and has one fix. A check that another one needs is left out after
    a FAIL. Exits with 1 if there is a FAIL.
    """
    # gRPC's own log lines would mix with the command's output.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lessor.channel import Connection  # noqa: PLC0415
    from lessor.cli import examination  # noqa: PLC0415 - gRPC takes its time to load; help needs none of it
    from lessor.findings import show_findings  # noqa: PLC0415

    style = chosen_style(style, EVERYWHERE)
    given = {**click.get_current_context().obj, **{name: one for name, one in reaching.items() if one}}
    contexts.adopt(os.environ, given)
    connection = Connection.from_environ(os.environ)
    if address := given.get("address"):
        connection = replace(connection, address=address)
    if token_file := given.get("token_file"):
        connection = replace(connection, token="", token_file=Path(token_file))
    findings = list(examination.examine(os.environ, connection))
    return show_findings(findings, as_json=style != TABLE)
