"""``lessor reconcile``: differences between the AWS account and the leases."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lessor.cli import output
from lessor.cli.command import LONG_SECONDS, calling, confirm, mount_option, yes_option
from lessor.v1 import lease_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

MATCH = "lessor: account and leases match"
COLUMNS = ("kind", "user_name", "lease_id", "applied")


@click.command("reconcile")
@mount_option
@click.option("--apply", is_flag=True, help="Repair the differences; without this option nothing is changed.")
@click.option(
    "--instance", default="", help="Check for users of another server: its instance_id in `lessor info`."
)
@yes_option
@calling(seconds=LONG_SECONDS)
def reconcile(call: Call, mount: str, instance: str, *, apply: bool, yes: bool) -> None:
    """Compare the AWS account with the leases, and list the differences.

    With `--format json` each difference is printed on one line as soon as it is found. With --apply, users
    that have no lease are revoked, and leases whose user no longer exists are ended.
    """
    if apply and not yes and sys.stdin.isatty():
        looking = pb.ReconcileRequest(mount=mount, instance=instance)
        number = sum(1 for _ in call.stream(call.leases.Reconcile, looking))
        if not number:
            click.echo(MATCH, err=True)
            return
        confirm(f"Repair {number} difference{'' if number == 1 else 's'}?", yes=yes)
    request = pb.ReconcileRequest(mount=mount, apply=apply, instance=instance)
    findings = call.stream(call.leases.Reconcile, request)
    if call.is_structured:
        for finding in findings:
            call.show_streamed(finding)
        return
    found = list(findings)
    if found:
        output.show_rows(found, COLUMNS)
    else:
        click.echo(MATCH, err=True)
