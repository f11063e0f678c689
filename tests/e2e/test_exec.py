"""Checks ``lessor exec``: what its program gets, what becomes of the lease, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from lessor.v1 import role_pb2
from tests.support.clients import Lessor, users_of
from tests.support.command_line import CommandLine
from tests.support.exec_world import (
    SHOW_ENVIRONMENT,
    all_gone,
    at_home,
    environment_of,
    states,
    users_made,
)
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

STALE = {
    "AWS_PROFILE": "other",
    "AWS_DEFAULT_PROFILE": "other",
    "AWS_ACCESS_KEY_ID": "AKIASTALE",
    "AWS_SECRET_ACCESS_KEY": "stale",
    "AWS_SESSION_TOKEN": "stale",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/stale",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/stale",
    "AWS_ROLE_ARN": "stale",
}
ASK = """
import json, os, urllib.request, urllib.error
uri = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
def ask(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
print(json.dumps({
    "uri": uri,
    "right": ask(uri, Authorization=token),
    "none": ask(uri),
    "wrong": ask(uri, Authorization=token[:-1] + "x"),
    "host": ask(uri, Authorization=token, Host="attacker.example"),
    "localhost": ask(uri.replace("127.0.0.1", "localhost"), Authorization=token),
    "path": ask(uri + "x", Authorization=token),
}))
"""


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module, in a home of their own."""
    return at_home(tmp_path, server)


async def put_session_role(lessor: Lessor, aws: StandIn, mount: str) -> None:
    """Write the role ``session``."""
    arn = await aws.role(f"role-{mount}")
    await lessor.put_role(
        mount, "session", credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=[arn], policy_document=None
    )


async def test_an_iam_users_keys_are_in_the_environment_and_its_lease_ends_with_the_program(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    found = await environment_of(lessor_cli, "app", "--mount", mount, "--region", "eu-west-1", **STALE)
    assert found["AWS_ACCESS_KEY_ID"].startswith("AKIA")
    assert found["AWS_ACCESS_KEY_ID"] != "AKIASTALE"
    assert found["LESSOR_LEASE_ID"].startswith(f"{mount}/creds/app/")
    assert found["LESSOR_ROLE"] == "app"
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_SECRET_ACCESS_KEY"] != "stale"
    set_anew = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert not (STALE.keys() - set_anew) & found.keys()
    assert "LESSOR_TOKEN" not in found
    assert await states(lessor, f"{mount}/") == ["GONE"]
    assert await users_of(aws, mount) == []


async def test_a_session_is_served_on_an_endpoint_that_only_the_program_can_use(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await put_session_role(lessor, aws, mount)
    words = ("exec", "session", "--mount", mount, "--wait-usable", "0s", "--", sys.executable, "-c", ASK)
    done = await lessor_cli(*words)
    assert done.code == 0, done.err
    found = done.json
    assert str(found["uri"]).startswith("http://127.0.0.1:")
    status, right = found["right"]
    assert status == 200
    assert right["AccessKeyId"].startswith("ASIA")
    assert right["Token"]
    assert right["Expiration"].endswith("Z")
    codes = {name: found[name][0] for name in ("none", "wrong", "host", "localhost", "path")}
    assert codes == {"none": 401, "wrong": 401, "host": 403, "localhost": 403, "path": 404}
    for name in codes:
        assert found[name][1].keys() == {"code", "message"}
    assert set(await states(lessor, f"{mount}/")) == {"GONE"}


async def test_either_way_can_be_chosen(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await put_session_role(lessor, aws, mount)
    session = await environment_of(lessor_cli, "session", "--mount", mount, "--env")
    assert session["AWS_SESSION_TOKEN"]
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in session
    user = await environment_of(lessor_cli, "app", "--mount", mount, "--endpoint")
    assert "AWS_ACCESS_KEY_ID" not in user
    assert len(user["AWS_CONTAINER_AUTHORIZATION_TOKEN"]) == 64
    assert set(await states(lessor, f"{mount}/")) == {"GONE"}


async def test_files_with_credentials_do_not_come_before_the_endpoint(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """AWS's SDKs ask a container endpoint last."""
    await lessor.put_role(mount)
    folder = lessor_cli.folder / ".aws"
    folder.mkdir()
    keys = "aws_access_key_id = AKIAFILE\naws_secret_access_key = x\n"
    (folder / "credentials").write_text(f"[default]\n{keys}")
    (folder / "config").write_text("[default]\nregion = eu-north-1\ncredential_process = /bin/false\n")
    found = await environment_of(lessor_cli, "app", "--mount", mount, "--endpoint")
    assert found["AWS_SHARED_CREDENTIALS_FILE"] == found["AWS_CONFIG_FILE"] == "/dev/null"
    assert found["AWS_REGION"] == "eu-north-1"
    (folder / "credentials").write_text(f"[other]\n{keys}")
    (folder / "config").write_text("[default]\nregion = eu-north-1\n")
    found = await environment_of(lessor_cli, "app", "--mount", mount, "--endpoint")
    assert not {"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_REGION"} & found.keys()


async def test_the_callers_token_is_passed_only_if_asked(
    lessor_cli: CommandLine, lessor: Lessor, server: ServerProcess, mount: str
) -> None:
    await lessor.put_role(mount)
    script = (sys.executable, "-c", "import os, sys; sys.exit(40 + len(os.environ.get('LESSOR_TOKEN', '')))")
    words = ("app", "--mount", mount, "--wait-usable", "0s")
    assert (await lessor_cli("exec", *words, "--", *script)).code == 40
    assert (await lessor_cli("exec", *words, "--pass-token", "--", *script)).code == 40 + len(server.token)


async def test_the_exit_code_is_the_programs(lessor_cli: CommandLine, lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    words = ("exec", "app", "--mount", mount, "--wait-usable", "0s", "--")
    assert (await lessor_cli(*words, "sh", "-c", "exit 42")).code == 42
    assert (await lessor_cli(*words, "sh", "-c", "kill -9 $$")).code == 128 + 9
    assert (await lessor_cli(*words, "sh", "-c", "kill -TERM $$")).code == 128 + 15
    assert set(await states(lessor, f"{mount}/")) == {"GONE"}


async def test_a_program_that_can_not_be_started_leaves_no_credentials(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    words = ("exec", "app", "--mount", mount, "--wait-usable", "0s", "--")
    missing = await lessor_cli(*words, "no-such-program")
    assert missing.code == 127
    assert "no such command" in missing.err
    (lessor_cli.folder / "plain").write_text("text")
    assert (await lessor_cli(*words, "./plain")).code == 126
    broken = lessor_cli.folder / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    assert (await lessor_cli(*words, str(broken))).code == 127
    assert set(await states(lessor, f"{mount}/")) <= {"GONE"}
    assert await users_of(aws, mount) == []


async def test_a_refused_issue_starts_nothing(lessor_cli: CommandLine, lessor: Lessor, mount: str) -> None:
    started = lessor_cli.folder / "started"
    done = await lessor_cli("exec", "no-such-role", "--mount", mount, "--", "touch", str(started))
    assert done.code == 5
    assert "no-such-role" in done.err
    denied = await lessor_cli(
        "exec", "app", "--mount", mount, "--", "touch", str(started), LESSOR_TOKEN="not-the-token-of-anyone"
    )
    assert denied.code == 4
    nowhere = await lessor_cli(
        "exec", "app", "--mount", mount, "--", "touch", str(started), LESSOR_ADDR="127.0.0.1:1"
    )
    assert nowhere.code == 6
    assert "nothing listens there" in nowhere.err
    assert not started.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--ttl", ""), "--ttl is empty; give a duration such as 1h"),
        (("--wait-usable", ""), "--wait-usable is empty"),
        (("--env", "--endpoint"), "--env and --endpoint exclude each other"),
    ],
)
async def test_options_that_say_nothing_or_two_things_are_refused(
    lessor_cli: CommandLine, mount: str, options: tuple[str, ...], text: str
) -> None:
    done = await lessor_cli("exec", "reader", "--mount", mount, *options, "--", "true")
    assert done.code == 2
    assert text in done.err


async def test_a_kept_lease_stays_active(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await environment_of(lessor_cli, "app", "--mount", mount, "--keep")
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
    assert len(await users_of(aws, mount)) == 1
    await environment_of(lessor_cli, "app", "--mount", mount)
    assert sorted(await states(lessor, f"{mount}/")) == ["ACTIVE", "GONE"]


async def test_fifty_commands_leave_no_user(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    words = ("exec", "app", "--mount", mount, "--wait-usable", "0s", "--", sys.executable, "-c", "pass")
    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(lessor_cli(*words)) for _ in range(4)]
        assert [one.result().code for one in runs] == [0] * 4
    assert await users_of(aws, mount) == []
    await all_gone(lessor, f"{mount}/")


async def test_no_secret_is_in_a_process_listing(
    lessor_cli: CommandLine, lessor: Lessor, server: ServerProcess, mount: str
) -> None:
    await lessor.put_role(mount)
    script = (
        "import os, json, pathlib\n"
        "own = pathlib.Path('/proc/self/cmdline').read_bytes()\n"
        "parent = pathlib.Path(f'/proc/{os.getppid()}/cmdline').read_bytes()\n"
        "print(json.dumps([(own + parent).decode(), dict(os.environ)]))"
    )
    words = ("exec", "app", "--mount", mount, "--wait-usable", "0s", "--", sys.executable, "-c", script)
    done = await lessor_cli(*words)
    shown, environment = json.loads(done.out)
    for secret in (environment["AWS_SECRET_ACCESS_KEY"], server.token):
        assert secret not in shown
        assert secret not in done.err


async def test_without_a_program_the_users_shell_runs(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    shell = lessor_cli.folder / "shell"
    shell.write_text("#!/bin/sh\necho shell $AWS_ACCESS_KEY_ID\n")
    shell.chmod(0o700)
    done = await lessor_cli("exec", "app", "--mount", mount, "--wait-usable", "0s", SHELL=str(shell))
    assert done.code == 0
    assert done.out.startswith("shell AKIA")


async def test_a_key_that_is_not_usable_in_time_starts_the_program_with_a_warning(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await environment_of(lessor_cli, "app", "--mount", mount)
    await aws.fault("refuse", "GetCallerIdentity", code="InvalidClientTokenId")
    done = await lessor_cli("exec", "app", "--mount", mount, "--wait-usable", "1s", "--", *SHOW_ENVIRONMENT)
    assert done.code == 0
    assert done.json["AWS_ACCESS_KEY_ID"]
    assert "warning: AWS has not accepted the key in time" in done.err


async def test_a_cached_user_is_not_made_by_exec(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn
) -> None:
    """Usage errors are found before anything is issued."""
    before = len(await users_made(aws))
    assert (await lessor_cli("exec", "--", "true")).code == 2
    assert (await lessor_cli("exec", "app", "extra", "--", "true")).code == 2
    assert (await lessor_cli("exec", "app", "--ttl", "soon", "--", "true")).code == 2
    assert len(await users_made(aws)) == before
