"""``lessor info``, ``whoami``, ``health``, ``reload``, ``backup``: the server and its maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli import json_errors
from lessor.cli.command import LONG_SECONDS, calling
from lessor.v1 import system_pb2 as pb

if TYPE_CHECKING:
    import grpc

    from lessor.cli.call import Call

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""A HealthCheckResponse whose only field, 1, is SERVING (health.proto of gRPC)."""
UNHEALTHY = 1


@click.command("info")
@calling()
def info(call: Call) -> None:
    """Show the server's version, store, settings and warnings."""
    call.show(call(call.system.GetInfo, pb.GetInfoRequest()))


@click.command("whoami")
@calling()
def whoami(call: Call) -> None:
    """Show the identity that the server has for your credential: its policies, labels, and when it ends."""
    call.show(call(call.system.WhoAmI, pb.WhoAmIRequest()), leave_out=("server_time",))


@click.command("reload")
@calling()
def reload(call: Call) -> None:
    """Read the server's access file again. If it has errors the old rules stay, and this lists them."""
    call.show_numbers(call(call.system.ReloadAccess, pb.ReloadAccessRequest()))


@click.command("backup")
@click.argument("name")
@calling(seconds=LONG_SECONDS)
def backup(call: Call, name: str) -> None:
    """Write a copy of the server's database. NAME is a new file in the server's data directory."""
    call.show(call(call.system.Backup, pb.BackupRequest(path=name)))


@click.command("health")
@calling(seconds=4.0)
def health(call: Call) -> int:
    """Check whether the server is serving. Exits with 0 if it is, else with 1. Needs no token."""
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = call.channel.unary_unary(HEALTH_METHOD)
    try:
        serving = call.anonymous(check, b"") == SERVING
    except click.ClickException as error:
        json_errors.report(error, call.style)
        return UNHEALTHY
    word = "SERVING" if serving else "NOT_SERVING"
    if call.is_structured:
        call.show_values({"status": word})
    else:
        click.echo(word)
    return 0 if serving else UNHEALTHY
