"""Checks roots and checks at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import ROOT_KEY, ROOT_SECRET
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

HUB = "111111111111"


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env)


@pytest.mark.slow
async def test_a_root_with_a_chain_and_fallbacks_is_set_and_checked(
    lessor_cli: CommandLine, mount: str, aws: StandIn
) -> None:
    first = await aws.role("first", account=HUB)
    second = await aws.role("second", account=HUB, external_id="sesame")
    words = ("config", "root", "set", "--mount", mount, "--access-key", ROOT_KEY, "--secret-key", "-")
    places = ("--iam-endpoint", aws.url, "--sts-endpoint", aws.url)
    fallback = ("--sts-fallback-endpoint", aws.url, "--sts-fallback-region", "eu-west-1")
    chain = ("--assume", first, "--assume", f"{second},sesame")
    stored = await lessor_cli(*words, *places, *fallback, *chain, stdin=ROOT_SECRET)
    assert stored.code == 0
    read = await lessor_cli("config", "root", "get", "--mount", mount, "--format", "json")
    config = read.json["config"]
    assert isinstance(config, dict)
    assert config["assume_chain"] == [
        {"role_arn": first},
        {"role_arn": second, "external_id": "sesame"},
    ]
    assert (config["sts_fallback_endpoints"], config["sts_fallback_regions"]) == ([aws.url], ["eu-west-1"])
    checked = await lessor_cli("config", "root", "check", "--mount", mount)
    assert (checked.fields["root_kind"], checked.fields["account"]) == ("ASSUMED_ROLE", HUB)
    odd = await lessor_cli(*words, *places, *fallback[:2], stdin=ROOT_SECRET)
    assert odd.code != 0
    assert "sts_fallback_regions" in odd.err


@pytest.mark.slow
async def test_missing_actions_of_a_root_are_named(lessor_cli: CommandLine, mount: str, aws: StandIn) -> None:
    complete = await lessor_cli("config", "root", "check", "--mount", mount)
    assert "missing" not in complete.fields
    await aws.sts(verdicts={"iam:TagUser": "implicitDeny", "iam:ListUsers": "implicitDeny"})
    try:
        checked = await lessor_cli("config", "root", "check", "--mount", mount)
    finally:
        await aws.sts(verdicts={})
    assert checked.code == 0
    assert checked.fields["missing"] == "iam:TagUser"
    assert "iam:TagUser" in checked.err


@pytest.mark.slow
async def test_a_role_is_checked_without_being_stored(lessor_cli: CommandLine, mount: str) -> None:
    words = ("role", "check", "app", "--mount", mount, "--type", "IAM_USER", "--group", "nobody")
    checked = await lessor_cli(*words)
    assert checked.code == 0
    assert "group nobody does not exist" in checked.err
    assert (await lessor_cli("role", "get", "app", "--mount", mount)).code != 0
