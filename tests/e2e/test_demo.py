"""Checks the steps of ``lessor demo``, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lessor_server.commands.demo import DemoServer, StepFailed, Tour
from lessor_server.commands.dev.embedded_aws import listen, run_embedded_aws
from lessor_server.commands.dev.process import dev_process
from lessor_server.domain.secret import Secret
from lessor_server.settings.parsers import Address
from tests.support.dev_server import SECONDS, gone, names
from tests.support.server_process import bare_environment, serving

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

TOKEN = Secret("the-root-token-of-demo-tests")
STEPS = (
    r"\$ lessor enable aws\n    lessor: mount 'aws' exists already; .*\n      reason: ALREADY_EXISTS\n",
    r"\$ lessor config root get\n    access_key +AKIA",
    r'"Version": "2023-11-12".* \|\n     lessor role put reader .*\n.*"2012-10-17".*"2008-10-17"',
    r'"Version": "2012-10-17".* \|\n     lessor role put reader .*\n    name +reader\n',
    r"\$ lessor creds reader\n    lease_id +aws/creds/reader/.*\n    lease_duration +768h\n",
    r"ec2:DescribeRegions:\n    .*regions\n",
    r"iam:ListUsers:\n    .*\(AccessDenied\)",
    r"\$ lessor lease renew \S+ --increment 1h\n    lease_id +\S+\n    lease_duration +1h\n",
    r"\$ lessor lease revoke \S+ --sync\n    outcome +GONE\n",
    r"ec2:DescribeRegions:\n    .*\(AuthFailure\)",
    r"\$ lessor creds reader --ttl 5s\n    lease_id .*\n    lease_duration +5s\n",
    r"ec2:DescribeRegions:\n    .*regions\n",
    r"\$ lessor lease lookup \S+\n    lease_id +\S+\n    state +GONE\n",
    r"ec2:DescribeRegions:\n    .*\(AuthFailure\)",
    r"\nThe demo is complete;",
)
"""What the tour shows, in this order."""


@asynccontextmanager
async def demo(tmp_path: Path, *words: str) -> AsyncIterator[Process]:
    """Run a demo for the length of the block, where an AWS profile and another server are set."""
    surroundings = {
        "AWS_PROFILE": "no-such-profile",
        "LESSOR_LISTEN": "0.0.0.0:1",
        "LESSOR_ADDR": "127.0.0.1:1",
        "TMPDIR": str(tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lessor.cli.main", "demo", *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**bare_environment(), **surroundings},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def family(pid: int) -> Iterator[int]:
    """Yield the ids of a process's children, theirs, and so on."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    for child in map(int, children):
        yield child
        yield from family(child)


@pytest.mark.slow
async def test_each_step_succeeds_and_nothing_is_left(tmp_path: Path) -> None:
    async with demo(tmp_path) as process, asyncio.timeout(SECONDS):
        shown, errors = (stream.decode() for stream in await process.communicate())
    assert (process.returncode, errors) == (0, "")
    shown = re.sub(r"    lessor: waiting for .*\n", "", shown)  # what a command adds on a slow machine
    assert names(tmp_path) == []
    place = 0
    for step in STEPS:
        found = re.compile(step).search(shown, place)
        assert found is not None, f"{step} is not in {shown[place:]}"
        place = found.end()
    secrets = re.findall(r"secret_key +(\S+)\n", shown)
    assert [len(secret) for secret in secrets] == [5] * 2


@pytest.mark.slow
async def test_a_demo_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.startswith(b"The engine"):
                break
        left = list(family(process.pid))
        assert len(left) >= 2  # the server and its AWS, and perhaps the command that is being shown
        process.kill()
        await process.wait()

    await gone(*left)
    assert names(tmp_path) == []


async def test_a_demo_takes_no_arguments(tmp_path: Path) -> None:
    async with demo(tmp_path, "--fast") as process, asyncio.timeout(SECONDS):
        await process.communicate()
    assert process.returncode == 2


async def test_a_server_without_the_engine_fails_the_demo(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        place = DemoServer(server.address, Secret(server.token), "http://127.0.0.1:1")
        with pytest.raises(StepFailed, match="`lessor enable` exits with 7, not with 0"):
            await Tour(place, lambda _: None).walk()


@pytest.mark.slow
async def test_a_key_that_aws_does_not_know_fails_the_demo(tmp_path: Path) -> None:
    async with (
        dev_process(TOKEN) as dev,
        run_embedded_aws(listen(Address("127.0.0.1", 0), "--aws-listen"), "127.0.0.1") as other,
    ):
        with pytest.raises(StepFailed, match="the key should list the regions, but AWS answers"):
            await Tour(DemoServer(dev.grpc, TOKEN, other.url), lambda _: None).walk()


@pytest.mark.slow
async def test_a_refused_caller_fails_the_demo_with_the_output_of_the_command(tmp_path: Path) -> None:
    shown: list[str] = []
    async with dev_process(TOKEN) as dev:
        place = DemoServer(dev.grpc, Secret("another-token-altogether"), dev.aws)
        with pytest.raises(StepFailed, match="`lessor enable` exits with 7, not with 4"):
            await Tour(place, shown.append).walk()
    assert shown[1] == "  $ lessor enable aws"
    assert shown[2].startswith("    lessor: the token is unknown; ")
    assert shown[3:5] == ["      credential: the token in LESSOR_TOKEN", "      reason: UNAUTHENTICATED"]
