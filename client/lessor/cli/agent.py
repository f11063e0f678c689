"""``lessor agent``: serves credentials of roles to programs on this machine, until it is stopped."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lessor.cli.command import mount_option
from lessor.cli.connecting import get_clock, reaching, report
from lessor.cli.params import DURATION, duration_of

if TYPE_CHECKING:
    from lessor.channel import Connection
    from lessor.leasing.agent import Served
    from lessor.leasing.agent_config import AgentConfig
    from lessor.leasing.clock import Clock

FAILED = 1


@click.command("agent")
@click.option("--role", "roles", metavar="[MOUNT/]ROLE", multiple=True, help="A role to serve; repeatable.")
@mount_option
@click.option("--listen", metavar="HOST:PORT", help="Where to listen [127.0.0.1:9911].")
@click.option(
    "endpoint_token", "--token-file", metavar="FILE", help="File with the endpoint's token [random]."
)
@click.option("--config", metavar="FILE", help="A TOML file with these settings, and files to keep current.")
@click.option("--ttl", type=DURATION, help="Lifetime to request [1h].")
@click.option("--wait-usable", type=DURATION, help="Maximum wait until AWS accepts a new key [10s].")
@click.option("--keep", is_flag=True, default=None, help="Leave the leases active at the end.")
@click.option("--address", hidden=True)
@click.option("--timeout", hidden=True)
@click.option("--context", hidden=True)
def agent(roles: tuple[str, ...], mount: str, config: str | None, **options: object) -> None:
    """Keep credentials of roles valid, and serve them to AWS's SDKs until interrupted.

    A program gets them at GET /creds/MOUNT/ROLE with the token in the Authorization header; SDKs do that by
    themselves with the variables that are printed. GET /ready answers 200 as soon as every role has
    credentials, 503 before. The leases are revoked at the end.

    --token-file is the endpoint's token, which is created if the file does not exist; your own is set by
    LESSOR_TOKEN or LESSOR_TOKEN_FILE, or by `lessor --token-file FILE agent`.
    """
    run(roles, mount, None if config is None else Path(config), options, get_clock())


def run(
    roles: Sequence[str], mount: str, config_file: Path | None, options: dict[str, object], clock: Clock
) -> None:
    """Serve with the options of the command line; raises ``ClickException``."""
    from lessor.leasing.agent_config import AgentConfig, InvalidConfig, load_config, role_name  # noqa: PLC0415

    connection, seconds = reaching(options)
    try:
        config = load_config(config_file) if config_file is not None else AgentConfig()
        names = tuple(role_name(one, mount) for one in roles)
        config = config.with_options(
            names=(*config.names, *names),
            listen=options["listen"],
            token_file=None if options["endpoint_token"] is None else Path(str(options["endpoint_token"])),
            ttl=duration_of(options["ttl"], "--ttl"),
            wait_usable=duration_of(options["wait_usable"], "--wait-usable"),
            keep=options["keep"],
        )
        config.address()
    except InvalidConfig as error:
        raise click.UsageError(str(error)) from None
    if not config.all_names:
        raise click.UsageError("there is nothing to serve; give --role ROLE, or --config FILE")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import asyncio  # noqa: PLC0415 - help needs none of it

    from lessor.cli.call import Failed, refusals_reported  # noqa: PLC0415 - gRPC takes its time to load
    from lessor.leasing.agent import BadToken  # noqa: PLC0415

    with refusals_reported(connection):
        try:
            asyncio.run(_serve(config, connection, seconds, clock))
        except BadToken as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise Failed(
                f"can't listen on {config.listen}: {error.strerror}; give another --listen", FAILED
            ) from None


async def _serve(config: AgentConfig, connection: Connection, seconds: float | None, clock: Clock) -> None:
    from lessor.leasing.agent import Agent  # noqa: PLC0415
    from lessor.leasing.refreshed import Tools  # noqa: PLC0415
    from lessor.leasing.server import SECONDS, GrpcLeaseServer  # noqa: PLC0415

    def show(served: Served) -> None:
        _show(served, config.token_file)

    async with GrpcLeaseServer(connection, clock, seconds or SECONDS) as server:
        await Agent(config, Tools(server, clock, random.SystemRandom(), report), os.environ).run(show)


def _show(served: Served, token_file: Path | None) -> None:
    """Print the variables for the first role, and the addresses of the others."""
    first, *others = served.names
    click.echo(f"export AWS_CONTAINER_CREDENTIALS_FULL_URI={served.uri(first)}")
    if token_file is None:
        click.echo(f"export AWS_CONTAINER_AUTHORIZATION_TOKEN={served.token}")
    else:
        click.echo(f"export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={token_file.absolute()}")
    for name in others:
        click.echo(f"# {name.mount}/{name.role}: {served.uri(name)}")


container_credentials = agent
"""The command's earlier name."""
