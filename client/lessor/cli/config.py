"""``lessor config``: an engine's root and its lease defaults."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from google.protobuf.json_format import MessageToDict

from lessor import values
from lessor.cli import output
from lessor.cli.command import Command, calling, mount_option
from lessor.cli.params import ASSUME_STEP, DURATION, SECRET, fill, given, mask
from lessor.cli.styles import POLICY
from lessor.v1 import config_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

ROOT_OPTIONS = (
    click.option("--access-key", help="Access key id of the root's IAM user."),
    click.option("--secret-key", type=SECRET, help="Its secret key: @FILE, or - for standard input."),
    click.option("--region", help="AWS region; it determines the partition."),
    click.option("--iam-endpoint", help="URL of the IAM endpoint."),
    click.option("--sts-endpoint", help="URL of the STS endpoint."),
    click.option("--sts-region", help="Region for which STS requests are signed."),
    click.option(
        "sts_fallback_endpoints",
        "--sts-fallback-endpoint",
        multiple=True,
        help="URL to try if the STS endpoint fails; repeatable, in order.",
    ),
    click.option(
        "sts_fallback_regions",
        "--sts-fallback-region",
        multiple=True,
        help="Region of a fallback endpoint; one for each, in order.",
    ),
    click.option("--max-retries", type=int, help="Maximum retries of a failed AWS call; 0 means none."),
    click.option("--username-template", help="Template of the names of IAM users and sessions."),
    click.option(
        "assume_chain",
        "--assume",
        type=ASSUME_STEP,
        multiple=True,
        help="A role to assume first; repeatable, in order.",
    ),
    click.option("--identity-token-file", help="File on the server with a web identity token."),
    click.option("--identity-token-audience", help="Audience that the token must name."),
    click.option("--rotation-period", type=DURATION, help="Time from one automatic rotation to the next."),
    click.option("--rotation-schedule", help="Automatic rotation by a cron expression, in UTC."),
    click.option("--rotation-window", type=DURATION, help="How late a scheduled rotation may begin."),
    click.option("--etag", help="Fail if the stored root no longer has this version."),
)


def root_options(command: Command) -> Command:
    """Add the options that become fields of a root."""
    for option in reversed(ROOT_OPTIONS):
        command = option(command)
    return command


@click.group("config")
def config() -> None:
    """Configure an engine."""


@config.group("root")
def root() -> None:
    """Set the credentials with which the server itself calls AWS, read and check them."""


@root.command("set")
@mount_option
@root_options
@click.option(
    "--update", is_flag=True, help="Change only the given fields; without it the whole root is replaced."
)
@calling()
def set_root(call: Call, mount: str, *, update: bool, **options: object) -> None:
    """Store an engine's root. At a terminal it prompts for the secret key if that is not given."""
    fields = given(options)
    if fields.get("access_key") and "secret_key" not in fields:
        fields["secret_key"] = _ask_secret()
    request = pb.SetRootRequest(mount=mount)
    request.config.SetInParent()
    fill(request.config, fields)
    if update:
        mask(request.update_mask, fields)
    call.show(call(call.config.SetRoot, request), "config")


@root.command("get")
@mount_option
@calling()
def get_root(call: Call, mount: str) -> None:
    """Show an engine's root without its secret key."""
    call.show(call(call.config.GetRoot, pb.GetRootRequest(mount=mount)), "config")


@root.command("check")
@mount_option
@calling(POLICY)
def check_root(call: Call, mount: str) -> None:
    """Ask AWS for the root's identity and permissions. `--format policy` prints the policy that it needs."""
    answer = call(call.config.CheckRoot, pb.CheckRootRequest(mount=mount))
    if call.written_style:
        click.echo(values.policy_text(MessageToDict(answer.least_policy), indent=2))
        return
    call.show(answer, leave_out=("actions", "least_policy"))
    if not call.is_structured:
        verdicts = pb.RootAction.Verdict
        missing = [one.action for one in answer.actions if one.verdict == verdicts.DENIED]
        output.show_pairs({"missing": "\n".join(map(output.plain, missing))} if missing else {})
        output.show_rows(answer.actions, ("action", "verdict"))


@config.group("lease")
def lease() -> None:
    """Set and read the lifetime of IAM users whose role sets none."""


@lease.command("set")
@mount_option
@click.option("--lease", type=DURATION, help="Default lifetime; the engine's default if not given.")
@click.option("--lease-max", type=DURATION, help="Maximum lifetime; the engine's maximum if not given.")
@calling()
def set_lease(call: Call, mount: str, **options: object) -> None:
    """Store an engine's lease defaults; both are replaced."""
    request = pb.SetLeaseDefaultsRequest(mount=mount)
    fill(request, given(options))
    call.show(call(call.config.SetLeaseDefaults, request))


@lease.command("get")
@mount_option
@calling()
def get_lease(call: Call, mount: str) -> None:
    """Show an engine's lease defaults."""
    call.show(call(call.config.GetLeaseDefaults, pb.GetLeaseDefaultsRequest(mount=mount)))


def _ask_secret() -> str:
    """Prompt for the secret key without echo; raises ``UsageError`` if there is no terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("--secret-key is missing: give @FILE, or - for standard input.")
    return str(click.prompt("Secret access key", hide_input=True, err=True))
