"""``lessor creds``: credentials of a role."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from lessor.cli import output
from lessor.cli.command import calling, mount_option
from lessor.cli.params import DURATION, fill, given
from lessor.v1 import creds_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

ENV = "env"


@click.command("creds")
@click.argument("role")
@mount_option
@click.option("--ttl", type=DURATION, help="Life asked for.")
@click.option("--reason", help="Why, for the audit.")
@calling(ENV)
def creds(call: Call, mount: str, role: str, **options: object) -> None:
    """Issue credentials of a role. They are printed once, here, and stored nowhere.

    In a shell: eval "$(lessor creds ROLE --format env)"
    """
    request = pb.GenerateCredentialsRequest(mount=mount, role=role)
    fill(request, given(options))
    answer = call(call.creds.GenerateCredentials, request)
    if call.style == ENV:
        click.echo(exports(answer))
        output.warn(answer.warnings)
    else:
        call.show(answer, leave_out=() if answer.usable else ("usable",))


def exports(answer: pb.GenerateCredentialsResponse) -> str:
    """Return the lines that a shell evaluates; a session token of before must not stay."""
    lines = [
        f"export AWS_ACCESS_KEY_ID={shlex.quote(answer.access_key)}",
        f"export AWS_SECRET_ACCESS_KEY={shlex.quote(answer.secret_key)}",
        f"export AWS_SESSION_TOKEN={shlex.quote(answer.security_token)}"
        if answer.security_token
        else "unset AWS_SESSION_TOKEN",
        f"# lease {output.plain(answer.lease_id)}",
    ]
    return "\n".join(lines)
