"""``lessor enable``, ``tune``, ``mounts``, ``disable``: the engines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lessor.cli.command import LIVE, Command, calling, confirm_leases, yes_option
from lessor.cli.completing import complete_mount
from lessor.cli.params import DURATION, fill, given, mask
from lessor.v1 import config_pb2 as pb
from lessor.v1 import role_pb2

if TYPE_CHECKING:
    from lessor.cli.call import Call

COLUMNS = ("mount", "state", "default_lease_ttl", "max_lease_ttl", "max_users", "create_time", "description")


def limits(command: Command) -> Command:
    """Add the options that become fields of a mount."""
    for option in (
        click.option("--max-users", type=int, help="Maximum number of IAM users at the same time."),
        click.option("--max-lease-ttl", type=DURATION, help="Maximum lifetime of any lease."),
        click.option(
            "--default-lease-ttl",
            type=DURATION,
            help="Lifetime of a lease if neither role nor request names one.",
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
    """Enable an AWS engine. MOUNT is its name, `aws` by default."""
    request = pb.EnableMountRequest(mount=mount)
    fill(request, given(options))
    call.show(call(call.config.EnableMount, request), "mount")


@click.command("tune")
@click.argument("mount", default="aws", shell_complete=complete_mount)
@limits
@calling()
def tune(call: Call, mount: str, **options: object) -> None:
    """Change an engine's description and limits; options that are not given stay unchanged."""
    fields = given(options)
    request = pb.TuneMountRequest(mount=mount)
    fill(request, fields)
    mask(request.update_mask, fields)
    call.show(call(call.config.TuneMount, request), "mount")


@click.command("mounts")
@calling()
def mounts(call: Call) -> None:
    """List the engines."""
    call.show_list(call.all(call.config.ListMounts, pb.ListMountsRequest(page_size=1000)), "mounts", COLUMNS)


@click.command("disable")
@click.argument("mount", default="aws", shell_complete=complete_mount)
@click.option(
    "--force", is_flag=True, help="Abandon the leases instead of revoking them, if the root no longer works."
)
@yes_option
@calling()
def disable(call: Call, mount: str, *, force: bool, yes: bool) -> None:
    """Disable an AWS engine. It issues no more credentials, and is removed once all its leases are revoked.

    Its static roles are deleted with the keys that Lessor created for them. With --force its leases are
    abandoned and those keys are kept: users and keys remain on AWS until somebody deletes them.
    """
    what = "abandon {}, whose users then stay on AWS" if force else "revoke {}"
    keys = "" if force or yes or not sys.stdin.isatty() else keys_of_static_roles(call, mount)
    question = (
        f"Disable the engine {mount}, {keys} and {what}?"
        if keys
        else f"Disable the engine {mount} and {what}?"
    )
    without = f"Disable the engine {mount} and {keys}?" if keys else f"Disable the engine {mount}?"
    confirm_leases(call, question, f"{mount}/", LIVE, yes=yes, without=without)
    answer = call(call.config.DisableMount, pb.DisableMountRequest(mount=mount, force=force))
    call.show_numbers(answer, "mount")


def keys_of_static_roles(call: Call, mount: str) -> str:
    """Return what ``disable`` does to the keys of the mount's static roles; empty if it has none."""
    from lessor.cli.call import DENIED, Failed  # noqa: PLC0415 - gRPC takes its time to load

    try:
        answer = call.all(
            call.roles.ListStaticRoles, role_pb2.ListStaticRolesRequest(mount=mount, page_size=1000)
        )
    except Failed as error:
        if error.exit_code != DENIED:
            raise
        return "delete the keys of all its static roles"  # listing may be denied
    number = len(answer.static_roles)
    which = "1 static role" if number == 1 else f"{number} static roles"
    return f"delete the keys of its {which}" if number else ""
