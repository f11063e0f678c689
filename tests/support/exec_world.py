"""Runs ``lessor exec`` and its relatives in a home of their own, and reads what their programs saw."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path

from lessor.v1 import lease_pb2
from tests.support.clients import Lessor, until
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess
from tests.support.standin_control import Json, StandIn

SHOW_ENVIRONMENT = (sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))")
SECONDS = 30.0


def home(folder: Path) -> dict[str, str]:
    """Make a home with a runtime folder, and return its variables; there is no keyring."""
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    return {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def at_home(folder: Path, server: ServerProcess, variables: Mapping[str, str] | None = None) -> CommandLine:
    """Return the command line in a new home, for this server."""
    return CommandLine(folder, {**server.client_env, **home(folder), **(variables or {})})


async def environment_of(lessor_cli: CommandLine, *words: str, **variables: str) -> dict[str, str]:
    """Return the environment that a program of ``lessor exec`` gets."""
    done = await lessor_cli("exec", *words, "--wait-usable", "0s", "--", *SHOW_ENVIRONMENT, **variables)
    assert done.code == 0, done.err
    found: dict[str, str] = json.loads(done.out)
    return found


async def line(process: Process) -> str:
    """Return the next line that a process writes."""
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def ended(process: Process) -> tuple[int, str, str]:
    """Wait for the end; return the exit code and the rest of the output."""
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def states(lessor: Lessor, prefix: str) -> list[str]:
    """Return the states of the leases under a prefix."""
    request = lease_pb2.ListLeasesRequest(prefix=prefix, page_size=1000)
    answer = await lessor.leases.ListLeases(request)
    return [lease_pb2.Lease.State.Name(one.state) for one in answer.leases]


async def all_gone(lessor: Lessor, prefix: str) -> None:
    """Wait until every lease under a prefix has ended; AssertionError if there was none."""
    found = await until(lambda: states(lessor, prefix), lambda seen: set(seen) == {"GONE"})
    assert found


async def users_made(aws: StandIn) -> list[Json]:
    """Return the calls that created a user."""
    return await aws.calls("CreateUser")
