"""``lessor watch``: events of leases, and new credentials ahead of each expiry, until interrupted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lessor.cli import output
from lessor.cli.command import FOR_EVER, calling, mount_option
from lessor.cli.completing import complete_usable_role
from lessor.cli.leases import prefix_argument
from lessor.cli.params import DURATION, fill, given, session_options
from lessor.v1 import creds_pb2, lease_pb2

if TYPE_CHECKING:
    from lessor.cli.call import Call

COLUMNS = ("time", "type", "lease_id", "error")


@click.group("watch")
def watch() -> None:
    """Watch leases, or credentials, until interrupted.

    With `--format json` each message is printed on one line as soon as it arrives. If the server ends the
    watch, the command exits with 6: list the leases, and watch again.
    """


@watch.command("leases")
@prefix_argument
@calling(seconds=FOR_EVER)
def leases(call: Call, prefix: str) -> None:
    """Print events of leases as they happen. PREFIX is `MOUNT/`, `MOUNT/creds/ROLE/` or a lease id."""
    for event in call.stream(call.leases.WatchLeases, lease_pb2.WatchLeasesRequest(prefix=prefix)):
        if call.is_structured:
            call.show_streamed(event)
        else:
            output.show_line(event, COLUMNS)


@watch.command("creds")
@click.argument("role", shell_complete=complete_usable_role)
@mount_option
@click.option("--ttl", type=DURATION, help="Lifetime of each set of credentials.")
@click.option("--overlap", type=DURATION, help="How long a set stays valid after the next was issued [1m].")
@click.option("--reason", help="Reason for the request; stored with the lease, and logged.")
@click.option("--wait-usable", type=DURATION, help="Maximum wait until AWS accepts each new key.")
@session_options
@click.option("--show-secrets", is_flag=True, help="Print the secrets even to a terminal.")
@calling(seconds=FOR_EVER)
def creds(call: Call, mount: str, role: str, *, show_secrets: bool, **options: object) -> None:
    """Issue credentials of a role, and new ones ahead of each expiry.

    After each new set the previous one stays valid for the overlap, and is then revoked. When this command
    ends, the last set is revoked after the overlap as well. Secrets are not printed to a terminal.
    """
    request = creds_pb2.WatchCredentialsRequest(mount=mount, role=role)
    fill(request, given(options))
    hidden = sys.stdout.isatty() and not show_secrets
    if hidden:
        click.echo("lessor: secrets are not shown at a terminal; --show-secrets prints them", err=True)
    for made in call.stream(call.creds.WatchCredentials, request):
        if hidden:
            made.ClearField("secret_key")
            made.ClearField("security_token")
        if call.is_structured:
            call.show_streamed(made)
        else:
            output.show_fields(made, ("warnings",))
            click.echo()
        output.warn(made.warnings)
