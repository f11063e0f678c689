"""``lessor context``: names for servers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from lessor.cli import contexts, output
from lessor.cli.command import format_option
from lessor.cli.completing import complete_context
from lessor.cli.styles import EVERYWHERE, TABLE, chosen_style
from lessor.values import JsonValue

EXISTS = 7
COLUMNS = ("name", "current", "addr", "cacert", "credential")


class AlreadyThere(click.ClickException):
    """There is a context of that name."""

    exit_code = EXISTS


@click.group("context")
def context() -> None:
    """Name servers, and choose the one that commands reach.

    `lessor --context NAME` or LESSOR_CONTEXT chooses for one command, `lessor context use NAME` for all
    commands, as long as LESSOR_ADDR is not set. A context holds the name of a file with a token, no token. If
    it has neither that nor a client certificate, your variables say who you are.
    """


@context.command("add")
@click.argument("name")
@click.option("--addr", required=True, metavar="ADDRESS", help="Address of the server, as in LESSOR_ADDR.")
@click.option("--cacert", metavar="FILE", default="", help="Certificates of its authority, PEM.")
@click.option("--client-cert", metavar="FILE", default="", help="Your certificate, PEM.")
@click.option("--client-key", metavar="FILE", default="", help="The key of your certificate, PEM.")
@click.option("--token-file", metavar="FILE", default="", help="A file with your token.")
@click.option("--use", "uses", is_flag=True, help="Also make it the current one.")
def add(name: str, addr: str, *, uses: bool, **files: str) -> None:
    """Add a context. To change one, remove it first."""
    contexts.checked_name(name)
    made = contexts.Context(addr, **{option: _absolute(file) for option, file in files.items()})
    _require_usable(made)
    known = contexts.load(os.environ)
    if name in known.by_name:
        raise AlreadyThere(f"there is a context {name!r} already; remove it first, or choose another name")
    contexts.save(
        contexts.Contexts({**known.by_name, name: made}, name if uses else known.current), os.environ
    )


@context.command("use")
@click.argument("name", shell_complete=complete_context)
def use(name: str) -> None:
    """Make a context the current one, which commands reach if no other server is named."""
    known = contexts.load(os.environ)
    known.named(name)
    contexts.save(replace(known, current=name), os.environ)
    if os.environ.get("LESSOR_ADDR"):
        output.warn(["LESSOR_ADDR is set, and the current context does not count until you unset it"])


@context.command("list")
@format_option()
def list_contexts(style: str | None) -> None:
    """List the contexts."""
    known = contexts.load(os.environ)
    rows: dict[str, JsonValue] = {
        name: {
            "name": name,
            "current": name == known.current,
            "addr": one.addr,
            "cacert": one.cacert,
            "credential": one.token_file or one.client_cert,
        }
        for name, one in sorted(known.by_name.items())
    }
    style = chosen_style(style, EVERYWHERE)
    if style != TABLE:
        from lessor.cli.formats import show_structured  # noqa: PLC0415 - protobuf takes its time to load

        show_structured({"contexts": list(rows.values())}, style)
    elif rows:
        cells = [
            [
                name,
                "yes" if name == known.current else "",
                one.addr,
                one.cacert,
                one.token_file or one.client_cert,
            ]
            for name, one in sorted(known.by_name.items())
        ]
        output.show_cells([list(map(output.plain, row)) for row in cells], COLUMNS)
    else:
        click.echo("lessor: no contexts", err=True)


@context.command("remove")
@click.argument("name", shell_complete=complete_context)
def remove(name: str) -> None:
    """Remove a context; its files stay."""
    known = contexts.load(os.environ)
    known.named(name)
    others = {other: one for other, one in known.by_name.items() if other != name}
    contexts.save(contexts.Contexts(others, "" if name == known.current else known.current), os.environ)


def _absolute(file: str) -> str:
    """Return the absolute path of a file, which must exist; empty if none is named."""
    if file and not Path(file).exists():
        raise click.UsageError(f"{file} does not exist; name a file")
    return str(Path(file).absolute()) if file else ""


def _require_usable(made: contexts.Context) -> None:
    """Refuse an address that is malformed, and a certificate without its key; no server is called."""
    from lessor.channel import BadConnection, Connection  # noqa: PLC0415 - gRPC takes its time to load

    try:
        _ = Connection(made.addr).target
    except BadConnection as wrong:
        raise click.UsageError(f"--addr: {wrong}") from None
    if bool(made.client_cert) != bool(made.client_key):
        raise click.UsageError("--client-cert and --client-key belong together; give both or neither")
