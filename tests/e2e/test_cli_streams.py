"""Checks the commands of streams and of the console with a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import federation
from tests.support.clients import SECONDS, nothing_left, until
from tests.support.command_line import CommandLine, Done
from tests.support.server_process import ServerProcess
from tests.support.standin_control import Json, StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env)


@asynccontextmanager
async def running(cli: CommandLine, *arguments: str) -> AsyncIterator[Process]:
    """Run a command for the length of the block; it is interrupted at the end, and says 130."""
    process = await cli.start(*arguments)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert (process.returncode, err.decode().strip()) == (130, "lessor: interrupted")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: Process) -> str:
    """Read one line of what a command prints."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), SECONDS)).decode().rstrip("\n")


async def said(process: Process) -> Json:
    """Read one line of JSON."""
    found = json.loads(await line(process))
    assert isinstance(found, dict)
    return found


async def put_session_role(cli: CommandLine, aws: StandIn, mount: str) -> None:
    """Store the role ``deploy``, of type ASSUMED_ROLE, over a role on AWS."""
    arn = await aws.role("deploy")
    words = ("--mount", mount, "--type", "assumed_role", "--role-arn", arn)
    done = await cli("role", "put", "deploy", *words)
    assert done.code == 0, done.err


async def test_events_of_leases_are_one_line_each(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    await lessor_cli.put_role(mount)
    machine = running(lessor_cli, "watch", "leases", f"{mount}/", "--format", "json")
    person = running(lessor_cli, "watch", "leases", f"{mount}/creds/app/")
    async with machine as received, person as shown:
        heard = asyncio.ensure_future(said(received))
        while not heard.done():
            await lessor_cli.issue(mount, "--ttl", "1")
        first = heard.result()
        assert first["type"] == "ISSUED"
        assert str(first["lease_id"]).startswith(f"{mount}/creds/app/")
        words = (await line(shown)).split()
        assert words[2:] in (["UTC", kind, words[4]] for kind in ("ISSUED", "EXPIRING", "REVOKED"))
    await nothing_left(aws, mount)


async def test_credentials_are_streamed_into_a_pipe(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    words = ("watch", "creds", "app", "--mount", mount, "--ttl", "4s", "--overlap", "1s")
    async with running(lessor_cli, *words, "--format", "json") as process:
        first, second = await said(process), await said(process)
    assert first["lease_id"] != second["lease_id"]
    assert first["secret_key"]
    assert first["secret_key"] != second["secret_key"]
    await nothing_left(aws, mount)


async def test_invalid_prefixes_and_overlaps_are_reported(lessor_cli: CommandLine, mount: str) -> None:
    await lessor_cli.put_role(mount)
    done = await lessor_cli("watch", "leases", "nowhere/app")
    assert (done.code, "prefix" in done.err) == (1, True)
    done = await lessor_cli("watch", "creds", "app", "--mount", mount, "--ttl", "1m")
    assert (done.code, "overlap: 1m is more than half of the ttl, 1m" in done.err) == (1, True)


async def test_only_the_console_link_is_printed(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    await put_session_role(lessor_cli, aws, mount)
    with federation.serving() as server:
        words = ("console", "deploy", "--mount", mount, "--signin-endpoint", server.url)
        done = await lessor_cli(*words, "--destination", "https://console.aws.amazon.com/s3", "--ttl", "15m")
        assert done.code == 0, done.err
        fields = parse_qs(urlsplit(done.out.strip()).query)
        assert fields["SigninToken"] == [federation.TOKEN]
        assert fields["Destination"] == ["https://console.aws.amazon.com/s3"]
        assert done.out.startswith(f"{server.url}?Action=login&")
        assert [line for line in done.err.splitlines() if "waiting for" not in line] == []
        ((_, form),) = server.asked
        session = json.loads(form["Session"][0])
        assert session["sessionToken"]
        shown = await lessor_cli(*words, "--session-duration", "1h", "--format", "json")
        assert shown.json["url"]
        assert str(shown.json["lease_id"]).startswith(f"{mount}/creds/deploy/")
        assert server.asked[1][1]["SessionDuration"] == ["3600"]


async def test_the_console_opens_in_a_browser(
    lessor_cli: CommandLine, aws: StandIn, mount: str, tmp_path: Path
) -> None:
    """The link is printed only without a browser, and is not in an argument of any process."""
    await put_session_role(lessor_cli, aws, mount)
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    script = f'#!/bin/sh\n(echo "$1"; cat "${{1#file://}}") > {opened}.part; mv {opened}.part {opened}\n'
    browser.write_text(script, encoding="utf-8")
    browser.chmod(0o700)
    with federation.serving() as server:
        words = ("console", "deploy", "--mount", mount, "--open", "--signin-endpoint", server.url)
        process = await lessor_cli.start(*words, BROWSER=f"{browser} %s")
        await until(lambda: asyncio.to_thread(opened.exists), bool, SECONDS)
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
        given, page = opened.read_text(encoding="utf-8").split("\n", 1)
        assert (process.returncode, out) == (130, b"")
        assert "Action" not in given
        assert f'href="{server.url}?Action=login&amp;' in page
        assert not await asyncio.to_thread(Path(given.removeprefix("file://")).exists)
        none = await lessor_cli(*words, BROWSER="/bin/false %s", PATH="")
        assert none.out.startswith(f"{server.url}?Action=login&")


async def test_invalid_options_of_the_console_are_refused_before_an_issue(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    await put_session_role(lessor_cli, aws, mount)
    done = await lessor_cli("console", "app", "--mount", mount)
    assert (done.code, "of type IAM_USER" in done.err) == (7, True)
    bad = ("--signin-endpoint", "http://signin.example.com/federation")
    assert (await lessor_cli("console", "deploy", "--mount", mount, *bad)).code == 2
    long = ("--session-duration", "13h")
    assert (await lessor_cli("console", "deploy", "--mount", mount, *long)).code == 2
    done = await lessor_cli("lease", "list", f"{mount}/", "--format", "json")
    assert done.json.get("leases", []) == []


async def test_a_sign_in_that_fails_shows_no_secret(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await put_session_role(lessor_cli, aws, mount)
    with federation.serving() as server:
        server.status = 400
        words = ("console", "deploy", "--mount", mount, "--signin-endpoint", server.url)

        async def fail() -> Done:
            return await lessor_cli(*words, "--session-duration", "1h")

        # On a busy machine AWS or the sign-in may not answer in time; the 400 is what lasts.
        done = await until(fail, lambda shown: "answered 400" in shown.err, 2 * SECONDS)
        sessions = [json.loads(form["Session"][0]) for _, form in server.asked]
    assert (done.code, done.out) == (1, "")
    assert "role chaining" in done.err
    assert f"{mount}/creds/deploy/" in done.err
    assert not any(secret in done.err for session in sessions for secret in session.values())


async def test_secrets_are_shown_at_a_terminal_only_with_show_secrets(
    lessor_cli: CommandLine, aws: StandIn, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    words = ("watch", "creds", "app", "--mount", mount, "--format", "json")
    for more, seen in (((), False), (("--show-secrets",), True)):
        line, answer = await at_a_terminal(lessor_cli, *words, *more)
        shown = json.loads(line)
        assert shown["access_key"]
        assert ("secret_key" in shown) is seen
        assert ("--show-secrets prints them" in answer) is not seen


async def at_a_terminal(cli: CommandLine, *arguments: str) -> tuple[str, str]:
    """Run a command whose output is a terminal; end it after a line. Return the line, and its errors."""
    ours, theirs = pty.openpty()
    process = await cli.start(*arguments, stdout=theirs)
    os.close(theirs)
    try:
        with os.fdopen(ours, encoding="utf-8") as terminal:
            line = await asyncio.wait_for(asyncio.to_thread(terminal.readline), SECONDS)
    finally:
        process.kill()
        _, answer = await process.communicate()
    return line, answer.decode()
