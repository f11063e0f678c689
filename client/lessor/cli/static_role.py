"""``lessor static-role``, ``static-creds`` and ``rotate-root``: access keys that are rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from lessor.cli import output
from lessor.cli.command import Command, calling, confirm, mount_option, yes_option
from lessor.cli.completing import complete_static_role
from lessor.cli.key_formats import written_key
from lessor.cli.params import ASSUME_STEP, DURATION, fill, given
from lessor.cli.styles import OF_KEYS
from lessor.v1 import config_pb2, creds_pb2
from lessor.v1 import role_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

SECONDS: Final = 150.0
"""The timeout: longer than a rotation whose new key AWS does not accept."""

COLUMNS: Final = (
    "name",
    "username",
    "access_key",
    "live_keys",
    "rotation_period",
    "rotation_schedule",
    "next_rotation_time",
    "held",
)
ROLE_OPTIONS: Final = (
    click.option("--username", help="The IAM user; it must exist, and can't be changed later."),
    click.option("--rotation-period", type=DURATION, help="Time from one rotation to the next."),
    click.option("--rotation-schedule", help="Schedule of rotations: a cron expression, in UTC."),
    click.option("--rotation-window", type=DURATION, help="How late a scheduled rotation may begin."),
    click.option(
        "--live-keys", type=int, help="1: the old key is deleted immediately; 2: at the next rotation."
    ),
    click.option(
        "assume_chain",
        "--assume",
        type=ASSUME_STEP,
        multiple=True,
        help="A role to assume first; repeatable, in order.",
    ),
)
held_option = click.option(
    "--held", is_flag=True, help="Rotate nothing until `resume`: another system still rotates the user."
)
other_key_option = click.option(
    "--delete-other-key",
    is_flag=True,
    help="If the user has two keys: delete the one that Lessor did not create.",
)


def role_options(command: Command) -> Command:
    """Add the options that become fields of a static role."""
    for option in reversed(ROLE_OPTIONS):
        command = option(command)
    return command


@click.command("rotate-root")
@mount_option
@other_key_option
@calling(seconds=SECONDS)
def rotate_root(call: Call, mount: str, *, delete_other_key: bool) -> None:
    """Replace the access key of an engine's root; the old key is deleted a minute later.

    The command returns once AWS accepts the new key and the server uses it. The new secret is not shown.
    """
    request = config_pb2.RotateRootRequest(mount=mount, delete_other_key=delete_other_key)
    call.show(call(call.config.RotateRoot, request))


@click.group("static-role")
def static_role() -> None:
    """Manage static roles: existing IAM users whose access keys are rotated."""


@static_role.command("put")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@role_options
@other_key_option
@held_option
@calling(seconds=SECONDS)
def put(call: Call, mount: str, name: str, *, delete_other_key: bool, held: bool, **options: object) -> None:
    """Create a static role with its first key, or replace all fields of an existing one.

    With --held it gets no key, and a role that is held stays so until `resume`.
    """
    request = pb.PutStaticRoleRequest(mount=mount, delete_other_key=delete_other_key)
    request.static_role.name = name
    request.static_role.held = held
    fill(request.static_role, given(options))
    call.show(call(call.roles.PutStaticRole, request), "static_role")


@static_role.command("get")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@calling()
def get(call: Call, mount: str, name: str) -> None:
    """Show a static role."""
    call.show(call(call.roles.GetStaticRole, pb.GetStaticRoleRequest(mount=mount, name=name)), "static_role")


@static_role.command("list")
@mount_option
@calling()
def list_static_roles(call: Call, mount: str) -> None:
    """List an engine's static roles."""
    call.show_list(
        call.all(call.roles.ListStaticRoles, pb.ListStaticRolesRequest(mount=mount, page_size=1000)),
        "static_roles",
        COLUMNS,
    )


@static_role.command("delete")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@click.option("--keep-key", is_flag=True, help="Leave the current key in AWS.")
@yes_option
@calling()
def delete(call: Call, mount: str, name: str, *, keep_key: bool, yes: bool) -> None:
    """Delete a static role and the keys that Lessor created for it, but not its IAM user or other keys."""
    what = "all but the current key" if keep_key else "the keys"
    confirm(f"Delete static role {name}, and {what} that Lessor created for it in AWS?", yes=yes)
    request = pb.DeleteStaticRoleRequest(mount=mount, name=name, keep_key=keep_key)
    answer = call(call.roles.DeleteStaticRole, request)
    if answer.pending_keys:
        keys = ", ".join(answer.pending_keys)
        output.warn([f"AWS has not deleted {keys} yet; the server retries until it has"])
    call.show(answer)


@static_role.command("rotate")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@other_key_option
@calling(seconds=SECONDS)
def rotate(call: Call, mount: str, name: str, *, delete_other_key: bool) -> None:
    """Replace a static role's key now."""
    request = pb.RotateStaticRoleRequest(mount=mount, name=name, delete_other_key=delete_other_key)
    call.show(call(call.roles.RotateStaticRole, request), "static_role")


@static_role.command("resume")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@other_key_option
@calling(seconds=SECONDS)
def resume(call: Call, mount: str, name: str, *, delete_other_key: bool) -> None:
    """Release a static role that is held. First stop the rotation by the other system."""
    request = pb.ResumeStaticRoleRequest(mount=mount, name=name, delete_other_key=delete_other_key)
    call.show(call(call.roles.ResumeStaticRole, request), "static_role")


@click.command("static-creds")
@click.argument("name", shell_complete=complete_static_role)
@mount_option
@calling(*OF_KEYS)
def static_creds(call: Call, mount: str, name: str) -> None:
    """Show the current key of a static role.

    In a shell: eval "$(lessor static-creds NAME --format env)"
    """
    request = creds_pb2.GetStaticCredentialsRequest(mount=mount, role=name)
    answer = call(call.creds.GetStaticCredentials, request)
    if call.written_style:
        click.echo(written_key(call.written_style, answer.access_key, answer.secret_key))
    else:
        call.show(answer)
