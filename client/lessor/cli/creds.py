"""``lessor creds``: credentials of a role."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import click

from lessor.cli import output
from lessor.cli.command import calling, mount_option
from lessor.cli.completing import complete_usable_role
from lessor.cli.key_formats import written_key
from lessor.cli.params import DURATION, fill, given, session_options
from lessor.cli.role_picker import require_role
from lessor.cli.styles import OF_KEYS
from lessor.v1 import creds_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

AUTO = "auto"


@click.command("creds")
@click.argument("role", required=False, shell_complete=complete_usable_role)
@mount_option
@click.option("--ttl", type=DURATION, help="Requested lifetime.")
@click.option("--reason", help="Reason for the request; stored with the lease, and logged.")
@click.option("--request-id", metavar="UUID|auto", help="Idempotency key: one lease for one id.")
@click.option("--wait-usable", type=DURATION, help="Maximum wait until AWS accepts the new key.")
@session_options
@calling(*OF_KEYS)
def creds(call: Call, mount: str, role: str | None, **options: object) -> None:
    """Issue credentials of a role. They are printed only now, and are not stored.

    In a shell: eval "$(lessor creds ROLE --format env)"

    Without ROLE, at a terminal, it lists the roles that you may use: type to filter, Enter to choose.

    --session-policy restricts an STS session. If the role has policies, it may contain only Deny statements.
    With --mfa-code - the command prompts for the code, or reads it from standard input.

    With --request-id the command retries within --timeout if the server is busy or briefly unreachable. If
    you run it again with the same id, you get the same lease with a new key. `auto` generates an id and
    prints it on standard error.
    """
    call.require_field(pb.GenerateCredentialsResponse)
    role = require_role(call, mount, role)
    fields = given(options)
    if fields.get("request_id") == AUTO:
        from lessor.calls import draw_request_id  # noqa: PLC0415 - gRPC takes its time to load

        fields["request_id"] = draw_request_id(random.SystemRandom())
        click.echo(f"lessor: request id {fields['request_id']}", err=True)
    request = pb.GenerateCredentialsRequest(mount=mount, role=role)
    fill(request, fields)
    send = call.again if request.request_id else call
    answer = send(call.creds.GenerateCredentials, request)
    asked = request.HasField("wait_usable")
    if call.written_style:
        keys = (answer.access_key, answer.secret_key, answer.security_token)
        click.echo(written_key(call.written_style, *keys))
        click.echo(f"# lease {output.plain(answer.lease_id)}")
        output.warn(answer.warnings)
    else:
        call.show(answer, leave_out=() if asked or answer.usable else ("usable",))
    if asked and not answer.usable:
        output.warn(["AWS has not accepted the key in three consecutive checks yet; the lease stays active"])
