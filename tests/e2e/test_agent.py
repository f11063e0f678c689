"""Checks ``lessor agent``: its endpoint, its files, its start and its end."""

from __future__ import annotations

import asyncio
import json
import stat
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.support.clients import Lessor, connect, until
from tests.support.command_line import CommandLine
from tests.support.exec_world import all_gone, at_home, ended, home, line, states
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

Answer = tuple[int, Mapping[str, object]]


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module, in a home of their own."""
    return at_home(tmp_path, server)


async def get(url: str, **headers: str) -> Answer:
    """Send a request."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.json()


@asynccontextmanager
async def agent(lessor_cli: CommandLine, *words: str) -> AsyncIterator[tuple[Process, str, str]]:
    """Run an agent with a random token; yield the process, the URI of its first role, and the token."""
    process = await lessor_cli.start("agent", "--wait-usable", "0s", "--listen", "127.0.0.1:0", *words)
    try:
        uri = (await line(process)).removeprefix("export AWS_CONTAINER_CREDENTIALS_FULL_URI=")
        token = (await line(process)).removeprefix("export AWS_CONTAINER_AUTHORIZATION_TOKEN=")
        yield process, uri, token
    finally:
        if process.returncode is None:
            process.terminate()
            await ended(process)


async def ready(uri: str) -> None:
    """Wait until an agent has every role."""
    url = f"{uri.partition('/creds/')[0]}/ready"
    await until(lambda: get(url), lambda answer: answer[0] == 200)


async def content(path: Path) -> str:
    """Return the content of a file, empty if it does not exist."""
    return path.read_text() if path.exists() else ""  # noqa: ASYNC240 - a small file


async def test_the_endpoint_answers_its_caller_alone(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    await lessor.put_role(mount, "other")
    async with agent(lessor_cli, "--role", f"{mount}/app", "--role", "other", "--mount", mount) as started:
        process, uri, token = started
        assert await line(process) == f"# {mount}/other: {uri.removesuffix('app')}other"
        await ready(uri)
        status, found = await get(uri, Authorization=token)
        assert status == 200
        assert found.keys() == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
        assert found["Token"] == "", "absent breaks boto3, null breaks the JavaScript SDK"
        other = await get(uri.removesuffix("app") + "other", Authorization=token)
        assert other[1]["AccessKeyId"] != found["AccessKeyId"]
        assert (await get(uri.replace("127.0.0.1", "localhost"), Authorization=token))[0] == 200
        refused = {
            "no token": await get(uri),
            "wrong token": await get(uri, Authorization="x" * 64),
            "role": await get(uri + "x", Authorization=token),
            "host": await get(uri, Authorization=token, Host="attacker.example"),
        }
        codes = {name: answer[0] for name, answer in refused.items()}
        assert codes == {"no token": 401, "wrong token": 401, "role": 404, "host": 403}
        assert all(answer[1].keys() == {"code", "message"} for answer in refused.values())
        process.terminate()
        code, _, err = await ended(process)
        assert (code, err) == (0, "lessor: every role has credentials\n")
    assert await states(lessor, f"{mount}/") == ["GONE", "GONE"]


async def test_the_old_name_works_and_kept_leases_stay(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    words = ("container-credentials", "--role", f"{mount}/app", "--keep", "--listen", "127.0.0.1:0")
    process = await lessor_cli.start(*words, "--wait-usable", "0s")
    uri = (await line(process)).partition("=")[2]
    await ready(uri)
    process.terminate()
    assert (await ended(process))[0] == 0
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]


async def test_a_token_file_is_made_once_and_read_again(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    path = lessor_cli.folder / "token"
    words = ("--role", f"{mount}/app", "--token-file", str(path))
    async with agent(lessor_cli, *words) as (_, uri, _):
        await ready(uri)
        token = path.read_text()
        assert len(token) == 64
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await get(uri, Authorization=token))[0] == 200
    path.write_text(f"{token}\n")
    async with agent(lessor_cli, *words) as (_, uri, _):
        await ready(uri)
        assert (await get(uri, Authorization=token))[0] == 200
    path.write_text("short\n")
    refused = await lessor_cli("agent", "--listen", "127.0.0.1:0", *words)
    assert refused.code == 2
    assert "delete it" in refused.err


async def test_files_are_current_and_programs_run_after_a_change(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    folder = lessor_cli.folder
    (folder / "credentials").write_text("[mine]\naws_access_key_id = AKIAMINE\n")
    (folder / "agent.toml").write_text(f"""
        listen = "127.0.0.1:0"
        wait_usable = "0s"
        [[file]]
        role = "app"
        mount = "{mount}"
        path = "{folder}/credentials"
        profile = "leased"
        mode = "0640"
        exec = ["sh", "-c", "echo ran $LESSOR_TOKEN >> ran"]
        [[file]]
        role = "{mount}/app"
        path = "{folder}/app.env"
        format = "env"
        [[file]]
        role = "{mount}/app"
        path = "{folder}/app.json"
        format = "json"
        exec = ["false"]
    """)
    process = await lessor_cli.start("agent", "--config", str(folder / "agent.toml"))
    uri = (await line(process)).partition("=")[2]
    token = (await line(process)).partition("=")[2]
    await ready(uri)
    _, served = await get(uri, Authorization=token)
    text = (folder / "credentials").read_text()
    assert text.startswith("[mine]\naws_access_key_id = AKIAMINE\n\n[leased]\n")
    assert f"aws_access_key_id = {served['AccessKeyId']}\n" in text
    assert "aws_session_token" not in text
    assert stat.S_IMODE((folder / "credentials").stat().st_mode) == 0o640
    assert (folder / "app.env").read_text() == (
        f"AWS_ACCESS_KEY_ID={served['AccessKeyId']}\nAWS_SECRET_ACCESS_KEY={served['SecretAccessKey']}\n"
    )
    assert stat.S_IMODE((folder / "app.env").stat().st_mode) == 0o600
    assert json.loads((folder / "app.json").read_text())["AccessKeyId"] == served["AccessKeyId"]

    assert await until(partial(content, folder / "ran"), bool) == "ran\n", (
        "the caller's token is not passed on"
    )
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    process.terminate()
    code, _, err = await ended(process)
    assert code == 0
    assert f"false, run after {folder}/app.json changed, ended with 1" in err


async def test_a_refused_role_ends_the_agent_and_revokes_the_others(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    words = ("agent", "--listen", "127.0.0.1:0", "--role", f"{mount}/app", "--role", f"{mount}/missing")
    done = await lessor_cli(*words)
    assert done.code == 5
    assert "missing" in done.err
    assert set(await states(lessor, f"{mount}/")) <= {"GONE"}


async def test_a_server_that_is_away_at_the_start_is_waited_for(aws: StandIn, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"  # nobody else listens there meanwhile
    variables = {"LESSOR_ADDR": address, "LESSOR_TOKEN": "the-root-token-of-tests", **home(tmp_path)}
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_LISTEN": address}
    async with serving(tmp_path, settings) as server, connect(server.address, server.token) as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
    async with agent(CommandLine(tmp_path, variables), "--role", "app") as (process, uri, token):
        assert (await get(uri.partition("/creds/")[0] + "/ready"))[0] == 503
        assert (await get(uri, Authorization=token))[0] == 503
        assert process.stderr is not None
        assert b"waiting for the server" in await process.stderr.readline()
        async with serving(tmp_path, settings) as server, connect(server.address, server.token) as lessor:
            await ready(uri)
            assert (await get(uri, Authorization=token))[0] == 200
            process.terminate()
            assert (await ended(process))[0] == 0
            await all_gone(lessor, "aws/")


async def test_a_wrong_configuration_is_reported_whole(lessor_cli: CommandLine) -> None:
    path = lessor_cli.folder / "agent.toml"
    path.write_text("""
        listen = "nowhere"
        role = "app"
        ttl = "soon"
        colour = "red"
        [[file]]
        role = "app"
        format = "xml"
        mode = "rw"
    """)
    done = await lessor_cli("agent", "--config", str(path))
    assert done.code == 2
    for problem in (
        "listen:",
        "role:",
        "ttl:",
        "colour:",
        "file[0].path:",
        "file[0].format:",
        "file[0].mode:",
    ):
        assert problem in done.err
    assert (await lessor_cli("agent")).code == 2
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        refused = await lessor_cli("agent", "--role", "app", "--listen", f"127.0.0.1:{port}")
    assert refused.code == 1
    assert "can't listen" in refused.err
