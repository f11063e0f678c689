"""``lessor role``: which credentials a caller can get."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from lessor.cli.command import LIVE, Command, calling, confirm_leases, mount_option, yes_option
from lessor.cli.completing import complete_role
from lessor.cli.params import DOCUMENT, DURATION, TAG, fill, given, mask
from lessor.v1 import role_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

COLUMNS = ("name", "credential_type", "policy_arns", "iam_groups", "default_ttl", "max_ttl", "max_leases")
TYPES = click.Choice(pb.Role.CredentialType.keys()[1:], case_sensitive=False)
ROLE_OPTIONS = (
    click.option("credential_type", "--type", type=TYPES, help="The kind of credentials."),
    click.option("--policy-document", type=DOCUMENT, help="An IAM policy."),
    click.option("policy_arns", "--policy-arn", multiple=True, help="A managed policy; repeatable."),
    click.option("iam_groups", "--group", multiple=True, help="An IAM group; repeatable."),
    click.option("iam_tags", "--tag", type=TAG, multiple=True, help="A tag of each IAM user; repeatable."),
    click.option("--user-path", help="Path of each IAM user, under the server's own."),
    click.option(
        "permissions_boundary_arn",
        "--permissions-boundary",
        help="ARN of the permissions boundary of each IAM user.",
    ),
    click.option("--default-ttl", type=DURATION, help="Lifetime of an IAM user if the request names none."),
    click.option("--max-ttl", type=DURATION, help="Maximum lifetime of an IAM user."),
    click.option("--max-leases", type=int, help="Maximum number of live leases; 0 means no limit."),
    click.option(
        "role_arns", "--role-arn", multiple=True, help="An IAM role that may be assumed; repeatable."
    ),
    click.option(
        "session_tags", "--session-tag", type=TAG, multiple=True, help="A tag of each session; repeatable."
    ),
    click.option(
        "transitive_tag_keys",
        "--transitive-tag-key",
        multiple=True,
        help="A session tag that is transitive in role chains; repeatable.",
    ),
    click.option("--source-identity", help="Source identity of each session."),
    click.option("--external-id", help="External id that the IAM role requires."),
    click.option("--default-sts-ttl", type=DURATION, help="Lifetime of a session if the request names none."),
    click.option("--max-sts-ttl", type=DURATION, help="Maximum lifetime of a session."),
    click.option(
        "--wait-usable",
        type=DURATION,
        help="Wait this long until AWS accepts each new key, if the request names no wait.",
    ),
    click.option("--mfa-serial-number", help="MFA device whose code each request must have."),
    click.option("--etag", help="Fail if the stored role no longer has this version."),
    click.option(
        "--update", is_flag=True, help="Change only the given fields; without it the whole role is replaced."
    ),
)
Request = TypeVar("Request", pb.PutRoleRequest, pb.CheckRoleRequest)


def role_options(command: Command) -> Command:
    """Add the options that become fields of a role."""
    for option in reversed(ROLE_OPTIONS):
        command = option(command)
    return command


@click.group("role")
def role() -> None:
    """Manage roles: which credentials a caller can get."""


@role.command("put")
@click.argument("name", shell_complete=complete_role)
@mount_option
@role_options
@calling()
def put(call: Call, mount: str, name: str, *, update: bool, **options: object) -> None:
    """Store a role. An error lists every problem; existing leases are not changed."""
    request = _filled(pb.PutRoleRequest(mount=mount), name, given(options), update=update)
    call.show(call(call.roles.PutRole, request), "role")


@role.command("check")
@click.argument("name", shell_complete=complete_role)
@mount_option
@role_options
@calling()
def check(call: Call, mount: str, name: str, *, update: bool, **options: object) -> None:
    """Check a role as `put` does, and store nothing."""
    request = _filled(pb.CheckRoleRequest(mount=mount), name, given(options), update=update)
    call.show(call(call.roles.CheckRole, request), "role")


@role.command("get")
@click.argument("name", shell_complete=complete_role)
@mount_option
@calling()
def get(call: Call, mount: str, name: str) -> None:
    """Show a role."""
    call.show(call(call.roles.GetRole, pb.GetRoleRequest(mount=mount, name=name)), "role")


@role.command("list")
@mount_option
@calling()
def list_roles(call: Call, mount: str) -> None:
    """List an engine's roles."""
    # A role can have several KiB: a page of 100 stays well below the maximum size of a message.
    call.show_list(
        call.all(call.roles.ListRoles, pb.ListRolesRequest(mount=mount, page_size=100)), "roles", COLUMNS
    )


@role.command("delete")
@click.argument("name", shell_complete=complete_role)
@mount_option
@click.option("--revoke-leases", is_flag=True, help="Also revoke its leases.")
@yes_option
@calling()
def delete(call: Call, mount: str, name: str, *, revoke_leases: bool, yes: bool) -> None:
    """Delete a role. Its leases still expire and can be revoked."""
    if revoke_leases:
        question = f"Delete role {name} and revoke {{}}?"
        confirm_leases(call, question, f"{mount}/creds/{name}/", LIVE, yes=yes)
    request = pb.DeleteRoleRequest(mount=mount, name=name, revoke_leases=revoke_leases)
    call.show(call(call.roles.DeleteRole, request))


def _filled(request: Request, name: str, fields: dict[str, object], *, update: bool) -> Request:
    """Return the request with its role and, for an update, with the mask of the given fields."""
    request.role.name = name
    fill(request.role, fields)
    if update:
        mask(request.update_mask, fields)
    return request
