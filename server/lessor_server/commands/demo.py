"""``lessor demo``: the tutorial, walked for you step by step."""

from __future__ import annotations

import os
import random

import click
import uvloop
from botocore.exceptions import BotoCoreError

from lessor_server.commands.cli_errors import report_errors
from lessor_server.commands.demo_steps import Place, StepFailed, Tour
from lessor_server.commands.dev.embedded_aws import MotoMissing, require_moto
from lessor_server.commands.dev.options import draw_token
from lessor_server.commands.dev.process import DevNotReady, dev_process

REPORTED = (BotoCoreError, DevNotReady, MotoMissing, OSError, StepFailed)


@click.command("demo")
def command() -> None:
    """Show what the service does, step by step, with an embedded AWS: nothing to set up, nothing left behind.

    Exits with 0 if each step came out as it should.
    """
    with report_errors("demo", REPORTED):
        require_moto()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]  # a profile or an endpoint of yours must not lead the SDK elsewhere
        uvloop.run(run())


async def run() -> None:
    """Start a server, walk the tour with it, stop it."""
    token = draw_token(random.SystemRandom())
    click.echo("Starting a server and an embedded AWS …")
    async with dev_process(token) as dev:
        await Tour(Place(dev.grpc, token, dev.aws), click.echo).walk()
    click.echo("\nThat was all. The server and its AWS are gone; `lessor dev` starts one that keeps running.")


if __name__ == "__main__":
    command()
