"""``lessor console``: a link that signs in to the AWS console."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from lessor import values
from lessor.cli import output
from lessor.cli.browser import SECONDS, opened
from lessor.cli.command import calling, mount_option
from lessor.cli.completing import complete_usable_role
from lessor.cli.params import DURATION, fill, given, session_options
from lessor.v1 import creds_pb2 as pb
from lessor.v1 import role_pb2

if TYPE_CHECKING:
    from lessor.cli.call import Call

FAILED, NOT_READY = 1, 7
MIN_DURATION, MAX_DURATION = timedelta(minutes=15), timedelta(hours=12)
"""AWS's limits for the length of a role's console session."""
_CHAINED = "AWS accepts no --session-duration if the root is itself a session (role chaining)"


@click.command("console")
@click.argument("role", shell_complete=complete_usable_role)
@mount_option
@click.option("--ttl", type=DURATION, help="Requested lifetime, 15 minutes or more.")
@click.option("--reason", help="Reason for the request; stored with the lease, and logged.")
@session_options
@click.option("--session-duration", type=DURATION, help="How long the console session lasts, 15m to 12h.")
@click.option("--destination", default="", help="The page of the console to open; its home page by default.")
@click.option("--issuer", default="", help="URL that the console opens when the session has expired.")
@click.option("--open", "opens", is_flag=True, help="Open the link in a browser instead of printing it.")
@click.option("--signin-endpoint", metavar="URL", help="The sign-in endpoint, if not AWS's own.")
@calling()
def console(
    call: Call,
    mount: str,
    role: str,
    *,
    session_duration: timedelta | None,
    destination: str,
    issuer: str,
    opens: bool,
    signin_endpoint: str | None,
    **options: object,
) -> None:
    """Issue credentials of a role and print a link that signs in to the AWS console with them.

    The role must be of type ASSUMED_ROLE or FEDERATION_TOKEN. The link works for 15 minutes, for anyone who
    has it, so keep it secret. Without --session-duration the console session ends with the credentials.
    """
    endpoint = _endpoint(signin_endpoint)
    kind = _kind(call, mount, role)
    _require_duration(session_duration, kind)
    request = pb.GenerateCredentialsRequest(mount=mount, role=role)
    fill(request, given(options))
    made = call(call.creds.GenerateCredentials, request)
    output.warn(made.warnings)
    url = _link(made, endpoint, session_duration, destination, issuer)
    if opens:
        click.echo(f"lessor: opening a browser; a temporary page is deleted after {SECONDS:g}s", err=True)
    if opens and opened(url):
        click.echo("lessor: opened in a browser; if it shows nothing, omit --open", err=True)
    elif call.is_structured:
        call.show_values({"url": url, "lease_id": made.lease_id})
    else:
        click.echo(url)


def _endpoint(given_: str | None) -> str | None:
    from lessor import signin  # noqa: PLC0415 - HTTP is not loaded for help

    try:
        return None if given_ is None else signin.checked(given_)
    except values.InvalidValue as wrong:
        raise click.UsageError(f"--signin-endpoint: {wrong}") from None


def _kind(call: Call, mount: str, role: str) -> str:
    """Return the role's type; raises ``Failed`` if AWS's console does not accept it."""
    from lessor.cli.call import Failed  # noqa: PLC0415 - gRPC takes its time to load

    found = call(call.roles.GetRole, role_pb2.GetRoleRequest(mount=mount, name=role)).role
    kind = role_pb2.Role.CredentialType.Name(found.credential_type)
    if kind not in {"ASSUMED_ROLE", "FEDERATION_TOKEN"}:
        problem = (
            f"role {role} is of type {kind}; AWS's console accepts only ASSUMED_ROLE and FEDERATION_TOKEN"
        )
        raise Failed(problem, NOT_READY)
    return kind


def _require_duration(duration: timedelta | None, kind: str) -> None:
    if duration is None:
        return
    if kind != "ASSUMED_ROLE":
        raise click.UsageError(f"--session-duration: AWS accepts none for a role of type {kind}; use --ttl")
    if not MIN_DURATION <= duration <= MAX_DURATION:
        raise click.UsageError("--session-duration is not within 15m and 12h")


def _link(
    made: pb.GenerateCredentialsResponse,
    endpoint: str | None,
    duration: timedelta | None,
    destination: str,
    issuer: str,
) -> str:
    from lessor import signin  # noqa: PLC0415 - HTTP is not loaded for help
    from lessor.cli.call import Failed  # noqa: PLC0415

    session = signin.Session(made.access_key, made.secret_key, made.security_token)
    try:
        partition = signin.partition_of(made.arn)
        place = endpoint or partition.federation
        token = signin.token(place, session, duration)
    except (values.InvalidValue, signin.NotSignedIn) as error:
        more = f"; {_CHAINED}" if duration is not None and isinstance(error, signin.Refused) else ""
        raise Failed(f"{error}{more}. The lease {made.lease_id} stays active", FAILED) from None
    return signin.link(place, token, destination or partition.console, issuer)
