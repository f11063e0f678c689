"""The real SDKs get credentials through exec, credential-process and the agent, also across a refresh.

boto3, the AWS CLI and the SDK for JavaScript run as they are; they and Lessor's commands get a clock that the
test moves by 56 minutes, when credentials of an hour must have been refreshed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lessor.v1 import lease_pb2, role_pb2
from tests.support.clients import Lessor, until, users_of
from tests.support.exec_world import all_gone, home, line
from tests.support.installed import ROOT, aws_cli, node_modules
from tests.support.server_process import ServerProcess, bare_environment
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

SDKS = ROOT / "tests" / "sdks"
LATER = 56 * 60
NOW = ("--wait-usable", "0s")
TYPES = ("IAM_USER", "ASSUMED_ROLE")


@dataclass(frozen=True)
class Place:
    """A home, its clock, and the programs that use the SDKs."""

    folder: Path
    environment: Mapping[str, str]
    programs: Mapping[str, tuple[str, ...]]

    @property
    def clock(self) -> Path:
        """Return the file with the seconds by which the clocks of Lessor's commands are ahead."""
        return self.folder / "clock"

    def lessor(self, *words: str) -> tuple[str, ...]:
        """Return the words that run a command of Lessor with that clock."""
        return (sys.executable, str(SDKS / "lessor_at.py"), str(self.clock), *words)

    async def start(self, *words: str, **variables: str) -> Process:
        """Start a program."""
        return await asyncio.create_subprocess_exec(
            *words,
            env={**self.environment, **variables},
            cwd=self.folder,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )

    @asynccontextmanager
    async def running(self, *words: str, **variables: str) -> AsyncIterator[Process]:
        """Run a program during the block; then close its input, and check its exit code."""
        process = await self.start(*words, **variables)
        assert process.stdin is not None
        try:
            yield process
            process.stdin.close()
            async with asyncio.timeout(30):
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode() + out.decode()
        finally:
            process.stdin.close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[str, ...]]:
    """Return the program of each SDK."""
    shell = f'while read seconds; do "{aws_cli()}" sts get-caller-identity --query Arn --output text; done'
    return {
        "boto3": (sys.executable, str(SDKS / "identity.py")),
        "aws": ("sh", "-c", shell),
        "javascript": ("node", str(SDKS / "identity.js"), str(node_modules())),
    }


@pytest.fixture
def place(
    tmp_path: Path, server: ServerProcess, aws: StandIn, programs: Mapping[str, tuple[str, ...]]
) -> Place:
    """Return a home whose SDKs call the stand-in."""
    (tmp_path / "clock").write_text("0")
    own = {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return Place(tmp_path, {**bare_environment(), **server.client_env, **home(tmp_path), **own}, programs)


async def put_role(lessor: Lessor, aws: StandIn, mount: str, kind: str) -> None:
    """Write the role ``app`` of a type."""
    if kind == "IAM_USER":
        await lessor.put_role(mount)
        return
    arn = await aws.role(f"role-{mount}")
    assumed = role_pb2.Role.ASSUMED_ROLE
    await lessor.put_role(mount, credential_type=assumed, role_arns=[arn], policy_document=None)


async def say(process: Process, seconds: int) -> str:
    """Let a program call AWS at a time; return the ARN that it is known by."""
    assert process.stdin is not None
    process.stdin.write(f"{seconds}\n".encode())
    answer = await line(process)
    if not answer:
        assert process.stderr is not None
        raise AssertionError((await process.stderr.read(65536)).decode())
    return answer


async def leases(lessor: Lessor, mount: str) -> list[lease_pb2.Lease]:
    """Return the leases of a mount."""
    request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/")
    return list((await lessor.leases.ListLeases(request)).leases)


async def move(place: Place, lessor: Lessor, mount: str, kind: str, count: int) -> None:
    """Move the clock, and wait until ``count`` leases were renewed, or replaced."""
    place.clock.write_text(str(LATER))

    def is_refreshed(found: list[lease_pb2.Lease]) -> bool:
        if kind == "IAM_USER":
            return sum(one.HasField("last_renewal_time") for one in found) >= count
        return len(found) >= 2 * count

    await until(lambda: leases(lessor, mount), is_refreshed)


def check(kind: str, before: list[str], after: list[str]) -> None:
    """Check who the programs were: the same users, or new sessions."""
    if kind == "IAM_USER":
        assert before == after
        assert all(":user/lessor/" in one for one in before)
    else:
        assert all(":assumed-role/" in one for one in (*before, *after))
        assert not set(before) & set(after)


async def say_all(processes: list[Process], seconds: int) -> list[str]:
    """Let all programs call AWS."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(say(one, seconds)) for one in processes]
    return [one.result() for one in tasks]


async def say_all_refreshed(kind: str, processes: list[Process], before: list[str]) -> list[str]:
    """Let all programs call AWS later, and again until none has an old session: one refreshes late."""
    if kind == "IAM_USER":
        return await say_all(processes, LATER)
    return await until(lambda: say_all(processes, LATER), lambda seen: not set(seen) & set(before))


@pytest.mark.parametrize("kind", TYPES)
async def test_programs_of_exec_have_credentials_across_a_refresh(
    place: Place, lessor: Lessor, aws: StandIn, mount: str, kind: str
) -> None:
    await put_role(lessor, aws, mount, kind)
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(
                place.running(
                    *place.lessor("exec", "app", "--mount", mount, "--wait-usable", "0s", "--"), *words
                )
            )
            for words in place.programs.values()
        ]
        before = await say_all(processes, 0)
        assert len(set(before)) == 3
        await move(place, lessor, mount, kind, 3)
        check(kind, before, await say_all_refreshed(kind, processes, before))
    await all_gone(lessor, f"{mount}/")
    assert await users_of(aws, mount) == []


@pytest.mark.parametrize("kind", TYPES)
async def test_profiles_with_credential_process_share_one_lease_across_a_refresh(
    place: Place, lessor: Lessor, aws: StandIn, mount: str, kind: str
) -> None:
    await put_role(lessor, aws, mount, kind)
    command = shlex.join(place.lessor("credential-process", "app", "--mount", mount, *NOW))
    (place.folder / "config").write_text(f"[profile dev]\ncredential_process = {command}\n")
    variables = {"AWS_CONFIG_FILE": str(place.folder / "config"), "AWS_PROFILE": "dev"}
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(place.running(*words, **variables))
            for words in place.programs.values()
        ]
        before = await say_all(processes, 0)
        assert len(set(before)) == 1
        place.clock.write_text(str(LATER))
        after = await say_all_refreshed(kind, processes, before)
        assert len(set(after)) == 1
        check(kind, before, after)
    found = await leases(lessor, mount)
    assert len(found) == (1 if kind == "IAM_USER" else 2)


@pytest.mark.parametrize("kind", TYPES)
async def test_programs_ask_the_agent_across_a_refresh(
    place: Place, lessor: Lessor, aws: StandIn, mount: str, kind: str
) -> None:
    await put_role(lessor, aws, mount, kind)
    token = place.folder / "token"
    words = ("agent", "--role", f"{mount}/app", "--listen", "127.0.0.1:0", "--token-file", str(token), *NOW)
    agent = await place.start(*place.lessor(*words))
    uri = (await line(agent)).partition("=")[2]
    assert (await line(agent)) == f"export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={token}"
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": uri,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
    }
    assert agent.stderr is not None
    assert "every role has credentials" in (await agent.stderr.readline()).decode()
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(place.running(*words, **variables))
            for words in place.programs.values()
        ]
        before = await say_all(processes, 0)
        assert len(set(before)) == 1
        await move(place, lessor, mount, kind, 1)
        check(kind, before, await say_all_refreshed(kind, processes, before))
    agent.terminate()
    _, err = await agent.communicate()
    assert (agent.returncode, err) == (0, b"")
    await all_gone(lessor, f"{mount}/")


async def test_commands_at_the_same_time_make_one_lease(
    place: Place, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await put_role(lessor, aws, mount, "IAM_USER")
    command = shlex.join(place.lessor("credential-process", "app", "--mount", mount, *NOW))
    (place.folder / "config").write_text(f"[profile dev]\ncredential_process = {command}\n")
    variables = {"AWS_CONFIG_FILE": str(place.folder / "config"), "AWS_PROFILE": "dev"}
    words = (str(aws_cli()), "sts", "get-caller-identity", "--output", "json")
    runs = [await place.start(*words, **variables) for _ in range(4)]
    outputs = [await one.communicate() for one in runs]
    assert [one.returncode for one in runs] == [0] * 4, outputs
    assert len({json.loads(out)["Arn"] for out, _ in outputs}) == 1
    assert len(await leases(lessor, mount)) == 1
