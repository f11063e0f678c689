"""Checks ``lessor credential-process`` and its cache: one lease for many calls, and no key for others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.leasing.cache import CacheKey
from lessor.v1 import role_pb2
from tests.support.clients import Lessor, users_of
from tests.support.command_line import CommandLine, Done
from tests.support.exec_world import all_gone, at_home, states
from tests.support.server_process import ServerProcess, bare_environment
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

OTHER_USER = 65534


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module, in a home of their own."""
    return at_home(tmp_path, server)


async def fetch(lessor_cli: CommandLine, mount: str, *options: str, **variables: str) -> Done:
    """Print the credentials of the role ``app``."""
    words = ("credential-process", "app", "--mount", mount, "--wait-usable", "0s")
    return await lessor_cli(*words, *options, **variables)


def files(lessor_cli: CommandLine) -> list[Path]:
    """Return the cached credentials in memory."""
    return sorted((lessor_cli.folder / "run" / "lessor").glob("*.credentials"))


def change(path: Path, **fields: object) -> None:
    """Change fields of a cached file."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **fields}))


async def test_one_object_is_printed_and_cached(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    assert (done.code, done.err) == (0, "")
    assert done.json.keys() == {"Version", "AccessKeyId", "SecretAccessKey", "Expiration"}
    assert done.json["Version"] == 1
    again = await fetch(lessor_cli, mount)
    assert again.out == done.out
    assert len(await users_of(aws, mount)) == 1
    [path] = files(lessor_cli)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    other = await fetch(lessor_cli, mount, "--ttl", "2h")
    assert other.out != done.out
    fresh = await fetch(lessor_cli, mount, "--no-cache")
    assert fresh.out != done.out
    assert len(files(lessor_cli)) == 2


async def test_a_session_has_its_token(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    arn = await aws.role(f"role-{mount}")
    await lessor.put_role(
        mount, credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=[arn], policy_document=None
    )
    done = await fetch(lessor_cli, mount)
    assert done.json["SessionToken"]
    assert (await fetch(lessor_cli, mount)).out == done.out


async def test_a_cached_answer_needs_no_server_and_no_grpc(
    lessor_cli: CommandLine, lessor: Lessor, server: ServerProcess, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    script = (
        "import sys, json; from lessor.cli.main import run; code = run(sys.argv[1:]);"
        "sys.stderr.write(json.dumps([code, sorted(sys.modules)]))"
    )
    words = [sys.executable, "-c", script, "credential-process", "app", "--mount", mount]
    env = {**bare_environment(), **lessor_cli.environment}
    ran = await asyncio.to_thread(subprocess.run, words, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == done.out
    code, modules = json.loads(ran.stderr)
    assert code == 0
    slow = {"grpc", "asyncio", "rich", "google.protobuf", "keyring", "cryptography", "lessor.v1"}
    assert not slow & set(modules)


async def test_callers_and_servers_share_nothing(
    lessor_cli: CommandLine, lessor: Lessor, server: ServerProcess, mount: str
) -> None:
    """Also not an entry that lies under the name of another one."""
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    other = await fetch(lessor_cli, mount, LESSOR_ADDR=server.address.replace("127.0.0.1", "localhost"))
    assert other.out != done.out
    denied = await fetch(lessor_cli, mount, LESSOR_TOKEN="not-the-token-of-anyone")
    assert (denied.code, denied.out) == (4, "")
    first, second = files(lessor_cli)
    first.write_bytes(second.read_bytes())
    for address in (server.address, server.address.replace("127.0.0.1", "localhost")):
        found = await fetch(lessor_cli, mount, LESSOR_ADDR=address)
        assert found.code == 0
    assert len(await states(lessor, f"{mount}/")) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b'{"version": 1}', b'{"version": 2}'])
async def test_a_damaged_file_is_replaced(
    lessor_cli: CommandLine, lessor: Lessor, mount: str, content: bytes
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    path.write_bytes(content)
    again = await fetch(lessor_cli, mount)
    assert (again.code, again.err) == (0, "")
    assert again.out != done.out
    assert (await fetch(lessor_cli, mount)).out == again.out


async def test_a_file_that_others_may_read_is_not_used(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    path.chmod(0o644)
    again = await fetch(lessor_cli, mount)
    assert again.out != done.out
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_file_or_folder_of_another_user_is_not_used(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    os.chown(path, OTHER_USER, OTHER_USER)
    again = await fetch(lessor_cli, mount)
    assert again.out != done.out
    os.chown(path.parent, OTHER_USER, OTHER_USER)
    refused = await fetch(lessor_cli, mount)
    assert refused.code == 0
    assert "belongs to another user" in refused.err


async def test_credentials_from_the_future_are_not_served(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    change(path, start="2099-01-01T00:00:00+00:00", end="2099-01-01T01:00:00+00:00")
    assert (await fetch(lessor_cli, mount)).out != done.out


async def test_an_old_lease_is_renewed_and_a_revoked_one_replaced(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    kept = json.loads(path.read_text())
    soon = kept["start"].replace("T", " ")
    change(path, end=soon)
    replaced = await fetch(lessor_cli, mount)
    assert replaced.json["AccessKeyId"] != done.json["AccessKeyId"], "what has ended is not renewed"
    path.write_text(json.dumps({**kept, "end": _in_minutes(kept["start"], 19)}))
    renewed = await fetch(lessor_cli, mount)
    assert renewed.json["AccessKeyId"] == done.json["AccessKeyId"]
    assert str(renewed.json["Expiration"]) >= str(done.json["Expiration"])
    await lessor.revoke(str(kept["lease_id"]))
    assert (await fetch(lessor_cli, mount)).out == renewed.out, "it is noticed at the next renewal"
    path.write_text(json.dumps({**kept, "end": _in_minutes(kept["start"], 19)}))
    assert (await fetch(lessor_cli, mount)).json["AccessKeyId"] != done.json["AccessKeyId"]


def _in_minutes(start: str, minutes: int) -> str:
    return (datetime.fromisoformat(start) + timedelta(minutes=minutes)).isoformat()


async def test_cached_credentials_bridge_an_outage(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """If the server can't be reached, what is still valid is better than nothing."""
    await lessor.put_role(mount)
    address = "127.0.0.1:1"
    nothing = await fetch(lessor_cli, mount, LESSOR_ADDR=address)
    assert (nothing.code, nothing.out) == (6, "")
    done = await fetch(lessor_cli, mount)
    [path] = files(lessor_cli)
    kept = json.loads(path.read_text())
    key = {**kept["key"], "address": address}
    elsewhere = path.with_name(f"{CacheKey(**key).name}.credentials")
    elsewhere.write_text(json.dumps({**kept, "key": key, "end": _in_minutes(kept["start"], 10)}))
    elsewhere.chmod(0o600)
    bridged = await fetch(lessor_cli, mount, LESSOR_ADDR=address)
    assert bridged.code == 0
    assert bridged.json["AccessKeyId"] == done.json["AccessKeyId"]
    assert "can't be renewed now" in bridged.err


async def test_lifetimes_with_which_each_call_would_make_a_user_are_refused(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount, max_ttl=Duration(seconds=1200))
    asked = await fetch(lessor_cli, mount, "--ttl", "29m")
    assert (asked.code, asked.out) == (2, "")
    assert "15 minutes before the end" in asked.err
    assert await states(lessor, f"{mount}/") == []
    granted = await fetch(lessor_cli, mount)
    assert (granted.code, granted.out) == (1, "")
    assert "grants 1200s" in granted.err
    await all_gone(lessor, f"{mount}/")
    assert await users_of(aws, mount) == []


async def test_without_a_place_for_a_cache_there_is_a_warning(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    first = await fetch(lessor_cli, mount, XDG_RUNTIME_DIR="")
    second = await fetch(lessor_cli, mount, XDG_RUNTIME_DIR="")
    assert first.code == second.code == 0
    assert first.out != second.out
    assert "each call issues new ones" in first.err
    assert not (lessor_cli.folder / "cache").exists(), "nothing is on disk without a keyring"


async def test_a_refusal_prints_nothing_and_no_secret(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    missing = await lessor_cli("credential-process", "no-such-role", "--mount", mount)
    assert (missing.code, missing.out) == (5, "")
    assert missing.err.startswith("lessor: ")
    assert files(lessor_cli) == []


async def test_with_a_keyring_the_cache_on_disk_is_encrypted(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    ring = {"PYTHON_KEYRING_BACKEND": "tests.support.file_keyring.FileKeyring"}
    done = await fetch(lessor_cli, mount, **ring)
    assert (done.code, done.err) == (0, "")
    folder = lessor_cli.folder / "cache" / "lessor"
    [path] = folder.glob("*.credentials")
    content = path.read_bytes()
    assert str(done.json["SecretAccessKey"]).encode() not in content
    assert b"AKIA" not in content
    assert files(lessor_cli) == []
    assert (await fetch(lessor_cli, mount, **ring)).out == done.out
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = await fetch(lessor_cli, mount, **ring)
    assert changed.code == 0
    assert changed.out != done.out
    (lessor_cli.folder / "keyring.json").unlink()
    another_key = await fetch(lessor_cli, mount, **ring)
    assert another_key.code == 0
    assert another_key.out != changed.out


async def test_clearing_the_cache_removes_keys_and_revokes_on_request(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await fetch(lessor_cli, mount)
    assert (await lessor_cli("cache", "clear")).code == 0
    assert files(lessor_cli) == []
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
    await fetch(lessor_cli, mount)
    cleared = await lessor_cli("cache", "clear", "--revoke")
    assert (cleared.code, cleared.out, cleared.err) == (0, "removed 1 cached credential\n", "")
    assert sorted(await states(lessor, f"{mount}/")) == ["ACTIVE", "GONE"]
    assert len(await users_of(aws, mount)) == 1


async def test_ten_calls_at_the_same_time_make_one_lease(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(fetch(lessor_cli, mount)) for _ in range(10)]
    assert len({one.result().out for one in calls}) == 1
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
