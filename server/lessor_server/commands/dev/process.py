"""Runs ``lessor dev`` in a separate process, for the demo and for tests."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.secret import Secret
from lessor_server.settings.sources import PREFIX

STOP_SECONDS: Final = 20
_READY: Final = re.compile(r"ready grpc=(\S+) aws=(\S+) http=(\S+)\n")
_ANY_PORT: Final = "127.0.0.1:0"


class DevNotReady(Exception):
    """The dev server ended before it was ready; it has printed the reason."""


@dataclass(frozen=True, slots=True)
class Dev:
    """The addresses of a dev server: ``grpc`` is host:port, ``aws`` and ``http`` are URLs."""

    grpc: str
    aws: str
    http: str


@asynccontextmanager
async def dev_process(token: Secret) -> AsyncIterator[Dev]:
    """Run a dev server with this root token, on ports that the system chooses, while the block runs.

    It also ends when this process ends, even by a kill, because its standard input is a pipe from here.

    Raises:
        DevNotReady: It did not start.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lessor_server.commands.dev.command",
        *("--listen", _ANY_PORT, "--aws-listen", _ANY_PORT, "--http-listen", _ANY_PORT, "--until-eof"),
        stdin=PIPE,
        stdout=PIPE,
        env=_surroundings(token),
    )
    try:
        yield await _ready(process)
    finally:
        await _stop(process)


def _surroundings(token: Secret) -> dict[str, str]:
    """Return the process's environment, with the token: other users could read arguments."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**plain, "LESSOR_ROOT_TOKEN": token.reveal(), "LESSOR_LOG_LEVEL": "error"}


async def _ready(process: Process) -> Dev:
    assert process.stdout is not None
    async for line in process.stdout:
        if found := _READY.fullmatch(line.decode()):
            return Dev(*found.groups())
    raise DevNotReady("the dev server did not start")


async def _stop(process: Process) -> None:
    """Terminate the process; kill it if it does not end."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
