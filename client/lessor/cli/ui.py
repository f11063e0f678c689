"""``lessor ui``: opens the server's console in a browser, signed in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from lessor.cli.browser import SECONDS, opened
from lessor.cli.command import calling
from lessor.v1 import system_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call


@click.command("ui")
@click.option("--print", "prints", is_flag=True, help="Print the link, and open nothing.")
@calling()
def ui(call: Call, *, prints: bool) -> None:
    """Open the server's console in the browser that BROWSER names; without BROWSER, print the link.

    The link signs you in as the identity of your credential. It works once, for 60 seconds: keep it secret.
    """
    link = call(call.system.CreateSignInLink, pb.CreateSignInLinkRequest())
    opens = bool(os.environ.get("BROWSER")) and not prints and not call.is_structured
    if opens:
        click.echo(f"lessor: opening a browser; a temporary page is deleted after {SECONDS:g}s", err=True)
        if opened(link.sign_in_url):
            return
    if call.is_structured:
        call.show(link)
    else:
        click.echo(link.sign_in_url)
