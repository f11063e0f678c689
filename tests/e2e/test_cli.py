"""Checks the commands of the command line with a real server: output, streams and exit codes."""

from __future__ import annotations

import asyncio
import re
import signal
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.support.clients import POLICY, ROOT_KEY, ROOT_SECRET
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

LEASE_ID = re.compile(r"[\w.-]+/creds/app/[0-9A-Za-z]{24}")


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env)


@pytest.mark.slow
async def test_an_engine_is_enabled_and_its_root_set_and_checked(
    lessor_cli: CommandLine, aws: StandIn
) -> None:
    enabled = await lessor_cli("enable", "byhand", "--max-lease-ttl", "24h", "--description", "a try")
    assert (enabled.code, enabled.fields["max_lease_ttl"]) == (0, "24h")
    assert (await lessor_cli("enable", "byhand")).code == 7
    tuned = await lessor_cli("tune", "byhand", "--max-users", "7")
    assert (tuned.fields["max_users"], tuned.fields["description"]) == ("7", "a try")
    assert "byhand" in (await lessor_cli("mounts")).out

    assert (await lessor_cli("config", "root", "get", "--mount", "byhand")).code == 7
    endpoints = ("--iam-endpoint", aws.url, "--sts-endpoint", aws.url)
    words = ("--mount", "byhand", "--access-key", ROOT_KEY, *endpoints)
    stored = await lessor_cli("config", "root", "set", *words, "--secret-key", "@secret")
    assert stored.fields["access_key"] == ROOT_KEY
    assert (
        await lessor_cli("config", "root", "set", *words, "--secret-key", "-", stdin=ROOT_SECRET)
    ).code == 0
    update = ("config", "root", "set", "--mount", "byhand", "--update", "--region", "eu-west-1")
    stale = await lessor_cli(*update, "--etag", stored.fields["etag"] + "0")
    assert (stale.code, "ETAG_MISMATCH" in stale.err) == (7, True)
    assert (await lessor_cli(*update)).fields["iam_endpoint"] == aws.url
    read = await lessor_cli("config", "root", "get", "--mount", "byhand", "--format", "json")
    assert ROOT_SECRET not in stored.out + read.out
    assert (await lessor_cli("config", "root", "check", "--mount", "byhand")).fields[
        "root_kind"
    ] == "USER_KEYS"
    policy = await lessor_cli("config", "root", "check", "--mount", "byhand", "--format", "policy")
    assert policy.json["Version"] == "2012-10-17"

    await lessor_cli("config", "lease", "set", "--mount", "byhand", "--lease", "1h", "--lease-max", "90m")
    defaults = await lessor_cli("config", "lease", "get", "--mount", "byhand")
    assert (defaults.fields["lease"], defaults.fields["lease_max"]) == ("1h", "1h30m")


@pytest.mark.slow
async def test_a_role_is_put_changed_listed_read_and_deleted(lessor_cli: CommandLine, mount: str) -> None:
    tags = ("--tag", "team=a", "--tag", "stage=b")
    stored = await lessor_cli.put_role(mount, *tags, "--max-ttl", "3h", "--group", "developers")
    assert (stored.fields["credential_type"], stored.fields["max_ttl"]) == ("IAM_USER", "3h")
    update = ("role", "put", "app", "--mount", mount, "--update")
    changed = await lessor_cli(*update, "--tag", "", "--max-leases", "4", "--etag", stored.fields["etag"])
    assert (changed.code, changed.fields["max_leases"], changed.fields["max_ttl"]) == (0, "4", "3h")
    assert "iam_tags" not in changed.fields
    checked = await lessor_cli("role", "check", "app", "--mount", mount, "--update", "--max-leases", "9")
    assert checked.fields["max_leases"] == "9"
    read = await lessor_cli("role", "get", "app", "--mount", mount, "--format", "json")
    role = read.json["role"]
    assert isinstance(role, dict)
    assert (role["max_leases"], role["policy_document"], role["iam_groups"]) == (4, POLICY, ["developers"])
    listed = await lessor_cli("role", "list", "--mount", mount)
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["app", "IAM_USER"]]
    assert (await lessor_cli("role", "delete", "app", "--mount", mount)).code == 0
    gone = await lessor_cli("role", "get", "app", "--mount", mount)
    assert (gone.code, gone.out) == (5, "")
    assert gone.err.startswith("lessor: no role")


async def test_all_violations_of_a_role_are_printed(lessor_cli: CommandLine, mount: str) -> None:
    words = ("--type", "iam_user", "--policy-document", '{"Version": "x"}', "--policy-arn", "foo")
    done = await lessor_cli("role", "put", "bad", "--mount", mount, *words, "--user-path", "none")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0].startswith("lessor: role.policy_arns[0]: ")
    for path in ("role.user_path", "role.policy_document.Version"):
        assert any(line.startswith(f"  {path}: ") and "; " in line for line in lines)
    assert "  reason: INVALID_REQUEST" in lines


@pytest.mark.slow
async def test_credentials_are_issued_renewed_and_revoked(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    shown = await lessor_cli("creds", "app", "--mount", mount, "--ttl", "30m", "--reason", "a test")
    lease = shown.fields["lease_id"]
    assert LEASE_ID.fullmatch(lease)
    assert (shown.code, shown.err, shown.fields["lease_duration"]) == (0, "", "30m")
    assert len(shown.fields["secret_key"]) == 40
    user = shown.fields["arn"].rpartition("/")[2]
    assert user in await aws.users()

    looked = await lessor_cli("lease", "lookup", lease)
    assert (looked.fields["state"], looked.fields["access_key"]) == ("ACTIVE", shown.fields["access_key"])
    assert lease in (await lessor_cli("lease", "list", f"{mount}/", "--state", "active")).out
    assert lease not in (await lessor_cli("lease", "list", f"{mount}/", "--state", "gone")).out
    for owner, found in (("root", True), ("nobody", False)):
        listed = await lessor_cli("lease", "list", f"{mount}/", "--owner", owner)
        assert (lease in listed.out) is found
    revoked = await lessor_cli("lease", "revoke-prefix", f"{mount}/", "--owner", "nobody", "--sync", "--yes")
    assert (revoked.code, revoked.fields["accepted"]) == (0, "0")
    counts = (await lessor_cli("lease", "count", f"{mount}/", "--format", "json")).json["counts"]
    assert counts == [{"mount": mount, "role": "app", "state": "ACTIVE", "count": 1}]
    renewed = await lessor_cli("lease", "renew", lease, "--increment", "10m")
    assert renewed.fields["lease_duration"] == "10m"
    assert renewed.err.startswith("lessor: warning: ")

    assert (await lessor_cli("lease", "revoke", lease, "--sync")).fields["outcome"] == "GONE"
    assert user not in await aws.users()
    assert (await lessor_cli("lease", "revoke", lease)).fields["outcome"] == "ALREADY_GONE"
    assert (await lessor_cli("lease", "renew", lease)).code == 5


@pytest.mark.slow
async def test_a_revocation_that_is_not_done_has_an_exit_code(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    """An unknown lease is 3, a failed first attempt 1."""
    unknown = await lessor_cli("lease", "revoke", f"{mount}/creds/app/{'a' * 24}")
    assert (unknown.code, unknown.fields["outcome"]) == (3, "UNKNOWN")
    assert "check the id" in unknown.err
    assert (await lessor_cli("lease", "revoke", "no-lease-id")).code == 1

    await lessor_cli.put_role(mount)
    lease = str((await lessor_cli.issue(mount))["lease_id"])
    await aws.fault("refuse", "DeleteAccessKey")
    failed = await lessor_cli("lease", "revoke", lease, "--sync")
    assert (failed.code, failed.fields["outcome"]) == (1, "ACCEPTED")
    assert "not revoked yet" in failed.err


async def test_a_shell_can_evaluate_credentials(lessor_cli: CommandLine, mount: str) -> None:
    """An old session token is unset."""
    await lessor_cli.put_role(mount)
    exported = await lessor_cli("creds", "app", "--mount", mount, "--format", "env")
    shown = 'printf "%s|%s|%s" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN"'
    script = f"{exported.out}\n{shown}"
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", script, env={"AWS_SESSION_TOKEN": "old"}, stdout=PIPE
    )
    out, _ = await shell.communicate()
    key, secret, session = out.decode().split("|")
    assert f"AWS_ACCESS_KEY_ID={key}" in exported.out
    assert (len(secret), session) == (40, "")


@pytest.mark.slow
async def test_the_token_comes_from_a_variable_or_a_file(
    lessor_cli: CommandLine, server: ServerProcess
) -> None:
    stranger = await lessor_cli("info", LESSOR_TOKEN="")
    assert (stranger.code, stranger.out) == (4, "")
    assert "LESSOR_TOKEN" in stranger.err
    file = lessor_cli.folder / "token"
    file.write_text("another-token-of-no-use\n", encoding="utf-8")
    assert (await lessor_cli("--token-file", "token", "info")).code == 4
    file.write_text(f"{server.token}\n", encoding="utf-8")
    answer = await lessor_cli("info", LESSOR_TOKEN="", LESSOR_TOKEN_FILE="token")
    assert (answer.code, answer.fields["store_kind"]) == (0, "sqlite")


async def test_health_needs_no_token(lessor_cli: CommandLine) -> None:
    healthy = await lessor_cli("health", LESSOR_TOKEN="")
    assert (healthy.code, healthy.out) == (0, "SERVING\n")
    assert (await lessor_cli("health", LESSOR_ADDR="127.0.0.1:1")).code == 1
    assert (
        await lessor_cli("health", LESSOR_ADDR=f"https://{lessor_cli.environment['LESSOR_ADDR']}")
    ).code == 1


@pytest.mark.slow
async def test_a_passed_deadline_has_the_exit_code_of_an_unavailable_server(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    await aws.fault("hang", "CreateUser")
    late = await lessor_cli("creds", "app", "--mount", mount, "--timeout", "1s")
    assert (late.code, late.out) == (6, "")
    assert (await lessor_cli("mounts", LESSOR_ADDR="127.0.0.1:1")).code == 6


@pytest.mark.slow
async def test_a_long_wait_is_noted_and_can_be_interrupted(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    await aws.fault("hang", "CreateUser")
    process = await lessor_cli.start("creds", "app", "--mount", mount)
    assert process.stderr is not None
    assert (await process.stderr.readline()).startswith(b"lessor: waiting for 127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "lessor: interrupted"
    assert b"Traceback" not in err


async def test_shell_completion_works(lessor_cli: CommandLine) -> None:
    words = {"COMP_WORDS": "lessor ", "COMP_CWORD": "1", "_LESSOR_COMPLETE": "bash_complete"}
    done = await lessor_cli(**words)
    assert {"plain,role", "plain,creds", "plain,server"} <= set(done.out.splitlines())
