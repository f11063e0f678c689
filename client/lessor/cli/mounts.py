"""``lessor enable``, ``tune``, ``mounts``: the engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli.command import Command, calling
from lessor.cli.params import DURATION, fill, given, mask
from lessor.v1 import config_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

COLUMNS = ("mount", "state", "default_lease_ttl", "max_lease_ttl", "max_users", "create_time", "description")


def limits(command: Command) -> Command:
    """Add the options that become fields of a mount."""
    for option in (
        click.option("--max-users", type=int, help="Most IAM users at one time."),
        click.option("--max-lease-ttl", type=DURATION, help="Longest life of any lease."),
        click.option(
            "--default-lease-ttl", type=DURATION, help="Life of a lease where nothing else says it."
        ),
        click.option("--description", help="Free text for people."),
    ):
        command = option(command)
    return command


@click.command("enable")
@click.argument("mount", default="aws")
@limits
@calling()
def enable(call: Call, mount: str, **options: object) -> None:
    """Enable an AWS engine. MOUNT is its name, `aws` where none is given."""
    request = pb.EnableMountRequest(mount=mount)
    fill(request, given(options))
    answer = call(call.config.EnableMount, request)
    call.show(answer, answer.mount)


@click.command("tune")
@click.argument("mount", default="aws")
@limits
@calling()
def tune(call: Call, mount: str, **options: object) -> None:
    """Change an engine's description and limits: those that are given."""
    fields = given(options)
    request = pb.TuneMountRequest(mount=mount)
    fill(request, fields)
    mask(request.update_mask, fields)
    answer = call(call.config.TuneMount, request)
    call.show(answer, answer.mount)


@click.command("mounts")
@calling()
def mounts(call: Call) -> None:
    """List the engines."""
    answer = call.all(call.config.ListMounts, pb.ListMountsRequest(page_size=1000))
    call.show_list(answer, answer.mounts, COLUMNS)
