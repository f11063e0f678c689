"""Checks the commands for operators with a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.clients import lease_of, nothing_left, until, users_of
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

REQUEST_ID = "0b0e5b1c-6a1f-4a52-9d0e-6f3d2f6f7a10"


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env)


@pytest.mark.slow
async def test_an_engine_is_disabled_and_removed_after_its_leases(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    await lessor_cli.issue(mount)
    await lessor_cli.issue(mount)
    await aws.fault("refuse", "DeleteUser")  # it lasts, however long the next command takes to start
    done = await lessor_cli("disable", mount)
    assert (done.code, done.fields["state"], done.fields["leases_left"]) == (0, "DISABLING", "2")
    refused = await lessor_cli("creds", "app", "--mount", mount)
    assert (refused.code, "MOUNT_DISABLING" in refused.err) == (7, True)
    await aws.clear_faults()
    await lessor_cli("disable", mount)  # what backs off is tried now, unless that is over already
    await nothing_left(aws, mount)
    await until(lambda: lessor_cli("mounts"), lambda shown: mount not in shown.out)
    assert (await lessor_cli("disable", mount, "--yes")).code == 5


@pytest.mark.slow
async def test_an_engine_with_an_invalid_root_is_disabled_by_force(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    lease = str((await lessor_cli.issue(mount))["lease_id"])
    await aws.fault("refuse")
    assert (await lessor_cli("disable", mount, "--force", "--format", "json")).json["mount"]
    await until(lambda: lessor_cli("mounts"), lambda shown: mount not in shown.out)
    assert (await lessor_cli("lease", "lookup", lease)).fields["state"] == "ABANDONED"
    assert len(await users_of(aws, mount)) == 1


@pytest.mark.slow
async def test_a_repeated_request_gives_one_lease(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    """With `auto` a new id is used and printed."""
    await lessor_cli.put_role(mount)
    first = await lessor_cli.issue(mount, "--request-id", REQUEST_ID)
    again = await lessor_cli.issue(mount, "--request-id", REQUEST_ID)
    assert first["lease_id"] == again["lease_id"]
    assert first["access_key"] != again["access_key"]
    drawn = await lessor_cli("creds", "app", "--mount", mount, "--request-id", "auto", "--format", "env")
    answer = re.fullmatch(r"lessor: request id (\S+)\n", drawn.err)
    assert answer is not None
    third = await lessor_cli.issue(mount, "--request-id", str(UUID(answer[1])))
    assert f"# lease {third['lease_id']}" in drawn.out
    assert len(await users_of(aws, mount)) == 2
    reused = await lessor_cli("creds", "app", "--mount", mount, "--request-id", REQUEST_ID, "--ttl", "5m")
    assert (reused.code, "REQUEST_ID_REUSED" in reused.err) == (1, True)
    assert (await lessor_cli("creds", "app", "--mount", mount, "--request-id", "me")).code == 1


@pytest.mark.slow
async def test_an_issue_that_fails_at_aws_is_not_reported_as_a_spent_id(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    await lessor_cli.issue(mount)
    for options in ([], ["--request-id", "auto"]):
        await aws.fault("error_before", "CreateUser")
        failed = await lessor_cli("creds", "app", "--mount", mount, *options)
        assert (failed.code, failed.out) == (6, "")
        await aws.clear_faults()
        await until(lambda: lessor_cli("creds", "app", "--mount", mount), lambda done: done.code == 0)


@pytest.mark.slow
async def test_the_wait_for_a_usable_key_is_reported(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    usable = await lessor_cli("creds", "app", "--mount", mount, "--wait-usable", "10s")
    assert (usable.code, usable.fields["usable"]) == (0, "yes")
    assert "warning" not in usable.err
    await aws.fault("refuse", "GetCallerIdentity", code="InvalidClientTokenId")
    late = await lessor_cli("creds", "app", "--mount", mount, "--wait-usable", "1s")
    assert (late.code, late.fields["usable"]) == (0, "no")
    assert late.err.startswith("lessor: warning: AWS has not accepted the key")


async def test_a_role_is_deleted_with_its_leases(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    await lessor_cli.put_role(mount)
    await lessor_cli.issue(mount)
    assert (await lessor_cli("role", "delete", "app", "--mount", mount, "--revoke-leases")).code == 0
    await nothing_left(aws, mount)


@pytest.mark.slow
async def test_a_prefix_is_revoked(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    """Progress goes to standard error, the result to standard output."""
    await lessor_cli.put_role(mount)
    for _ in range(3):
        await lessor_cli.issue(mount)
    done = await lessor_cli("lease", "revoke-prefix", f"{mount}/creds/app/", "--sync")
    assert done.fields == {"accepted": "3", "done": "3", "failed": "0", "left": "0"}
    assert (done.code, done.err.splitlines()[0]) == (0, "lessor: 0 of 3 done, 0 failed")
    assert done.err.splitlines()[-1] == "lessor: 3 of 3 done, 0 failed"
    assert len(set(done.err.splitlines())) == len(done.err.splitlines()), "a line is printed twice"
    assert await users_of(aws, mount) == []
    none = await lessor_cli("lease", "revoke-prefix", f"{mount}/", "--sync", "--yes")
    assert (none.code, none.fields["accepted"]) == (0, "0")
    assert (await lessor_cli("lease", "revoke-prefix", mount)).code == 0, "the last slash is completed"
    assert (await lessor_cli("lease", "revoke-prefix", f"{mount}/app")).code == 1


@pytest.mark.slow
async def test_a_lease_that_cannot_be_revoked_can_be_abandoned(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    lease = str((await lessor_cli.issue(mount))["lease_id"])
    await lessor_cli.issue(mount)
    (user,) = [str(one["name"]) for one in await users_of(aws, mount) if lease_of(one) == lease]
    await aws.fault("refuse", "DeleteAccessKey", user=user)
    failed = await lessor_cli("lease", "revoke-prefix", f"{mount}/", "--sync", "--yes")
    assert (failed.code, failed.fields) == (1, {"accepted": "2", "done": "1", "failed": "1", "left": "0"})
    assert "not revoked yet" in failed.err

    gone = await lessor_cli("lease", "abandon", lease, "--yes")
    assert (gone.code, gone.fields) == (0, {"abandoned": "1"})
    shown = await lessor_cli("reconcile", "--mount", mount)
    assert ["ABANDONED_USER", user, lease, "no"] in [line.split() for line in shown.out.splitlines()]
    await aws.clear_faults()
    assert (await lessor_cli("lease", "revoke", lease, "--sync")).fields["outcome"] == "GONE"
    after = await lessor_cli("reconcile", "--mount", mount)
    assert (after.code, lease in after.out) == (0, False)
    assert (await lessor_cli("lease", "abandon", "--prefix", f"{mount}/")).fields == {"abandoned": "0"}


@pytest.mark.slow
async def test_findings_are_lines_of_json(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    await lessor_cli.put_role(mount)
    leases = {str((await lessor_cli.issue(mount))["lease_id"]) for _ in range(2)}
    await aws.fault("refuse", "DeleteAccessKey")
    await lessor_cli("lease", "revoke-prefix", f"{mount}/", "--sync")
    await lessor_cli("lease", "abandon", "--prefix", f"{mount}/")
    done = await lessor_cli("reconcile", "--mount", mount, "--format", "json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert {("ABANDONED_USER", one) for one in leases} <= {(one["kind"], one["lease_id"]) for one in found}
    assert (await lessor_cli("reconcile", "--mount", mount, "--instance", "mine")).code == 1


@pytest.mark.slow
async def test_a_matching_account_is_reported_to_a_person(lessor_cli: CommandLine, mount: str) -> None:
    await lessor_cli.put_role(mount)
    await lessor_cli.issue(mount)
    instance = ("reconcile", "--mount", mount, "--instance", "0123456789abcdef")
    shown = await lessor_cli(*instance)
    assert (shown.code, shown.out, shown.err) == (0, "", "lessor: account and leases match\n")
    assert (await lessor_cli(*instance, "--format", "json")).out == ""


@pytest.mark.slow
async def test_expiries_are_held_and_resumed(lessor_cli: CommandLine, mount: str) -> None:
    assert (await lessor_cli("expiry", "hold", "--reason", "a move")).code == 0
    assert "a move" in (await lessor_cli("info")).err
    assert (await lessor_cli("expiry", "resume")).code == 0
    assert "held" not in (await lessor_cli("info")).err


async def test_the_data_key_is_rotated(lessor_cli: CommandLine) -> None:
    first, second = [await lessor_cli("sealing", "rotate") for _ in range(2)]
    assert (first.code, second.code) == (0, 0)
    assert len(first.fields["key_id"]) == len(second.fields["key_id"]) == 16
    assert first.fields["key_id"] != second.fields["key_id"]


async def test_a_backup_is_written_once(lessor_cli: CommandLine, server: ServerProcess) -> None:
    done = await lessor_cli("backup", "copy.db")
    assert (done.code, done.fields["path"]) == (0, "copy.db")
    assert (server.data_dir / "copy.db").stat().st_size == int(done.fields["size_bytes"])
    again = await lessor_cli("backup", "copy.db")
    assert (again.code, again.out) == (7, "")
    assert (await lessor_cli("backup", "../copy.db")).code == 1


async def test_a_caller_can_read_its_own_name(lessor_cli: CommandLine) -> None:
    assert (await lessor_cli("whoami")).fields["identity"] == "root"
