"""Checks sessions of STS at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

SERIAL = "arn:aws:iam::123456789012:mfa/root-device"
CODE = "602214"
WRONG_USAGE = 2
DENY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env)


async def put(run: CommandLine, aws: StandIn, mount: str, *options: str) -> str:
    """Store a role that assumes an IAM role; return that role's ARN."""
    arn = await aws.role(f"cli-{mount}")
    words = ("--mount", mount, "--type", "assumed_role", "--role-arn", arn, *options)
    done = await run("role", "put", "app", *words)
    assert done.code == 0, done.err
    return arn


async def test_a_session_is_requested_with_role_name_and_policy(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    arn = await put(lessor_cli, aws, mount)
    words = ("--role-arn", arn, "--session-name", "by-hand", "--session-policy", json.dumps(DENY))
    made = await lessor_cli("creds", "app", "--mount", mount, "--ttl", "15m", "--format", "table", *words)
    assert made.code == 0, made.err
    assert made.fields["arn"].endswith("/by-hand")
    assert made.fields["security_token"]
    assert made.fields["lease_renewable"] == "no"
    session = await aws.session(made.fields["access_key"])
    assert json.loads(str(session["policy"])) == DENY


async def test_exports_include_the_session_token(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    await put(lessor_cli, aws, mount)
    made = await lessor_cli("creds", "app", "--mount", mount, "--format", "env")
    assert "export AWS_SESSION_TOKEN=" in made.out
    assert "unset" not in made.out


async def test_an_mfa_code_is_read_from_standard_input(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    """Other users can see arguments."""
    await put(lessor_cli, aws, mount, "--mfa-serial-number", SERIAL)
    await aws.sts(mfa_codes={SERIAL: CODE})
    argument = await lessor_cli("creds", "app", "--mount", mount, "--mfa-code", CODE)
    assert argument.code == WRONG_USAGE
    made = await lessor_cli("creds", "app", "--mount", mount, "--mfa-code", "-", stdin=f"{CODE}\n")
    assert made.code == 0, made.err
    again = await lessor_cli("creds", "app", "--mount", mount, "--mfa-code", "-", stdin=f"{CODE}\n")
    assert "MFA_REFUSED" in again.err
    assert CODE not in made.out + made.err + again.out + again.err


async def test_revoking_a_session_forgets_its_lease(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await put(lessor_cli, aws, mount)
    lease_id = str((await lessor_cli.issue(mount))["lease_id"])
    done = await lessor_cli("lease", "revoke", lease_id)
    assert (done.code, done.fields["outcome"]) == (0, "FORGOTTEN")
    assert done.fields["expire_time"]
    assert "it works until" in done.err
    assert (await lessor_cli("lease", "revoke", lease_id)).fields["outcome"] == "ALREADY_GONE"
