"""Runs ``lessor dev`` in a forked process, and checks the files that it leaves."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.support.clients import until
from tests.support.forked import Forked, forked, forked_with_input
from tests.support.server_process import bare_environment

COMMAND = ("-m", "lessor.cli.main", "dev")
ANY_PORTS = ("--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
READY = re.compile(
    r"ready grpc=(127\.0\.0\.1:\d+) aws=(http://127\.0\.0\.1:\d+) http=(http://127\.0\.0\.1:\d+)\n"
)
SECONDS = 60.0


@dataclass
class Dev:
    """A running dev server: the end of its stdin, its address, and its output until it was ready."""

    process: Forked
    keyboard: BinaryIO
    address: str
    aws: str
    http: str
    said: str
    log: Path

    def errors(self) -> str:
        """Return its log so far."""
        return self.log.read_text(encoding="utf-8")

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and return the exit code."""
        async with asyncio.timeout(SECONDS):
            return await asyncio.to_thread(self.process.wait, SECONDS)

    def status(self) -> str:
        """Return its status from the kernel (proc(5), ``/proc/PID/status``)."""
        return Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")

    def embedded_aws(self) -> int:
        """Return the process id of its embedded AWS."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return next(
            int(child)
            for child in children
            if b"embedded_aws_process" in Path(f"/proc/{child}/cmdline").read_bytes()
        )


def names(folder: Path) -> list[str]:
    """Return the content of a folder."""
    return [path.name for path in folder.iterdir()]


def environment(tmp_path: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a dev server: temporary directories are created below ``tmp_path``."""
    return {**bare_environment(), "TMPDIR": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", **more}


@asynccontextmanager
async def dev(tmp_path: Path, *words: str, **variables: str) -> AsyncIterator[Dev]:
    """Run a dev server until the end of the block, or until it exits."""
    log = tmp_path.parent / f"{tmp_path.name}.log"
    with log.open("ab") as errors:
        process, keyboard = forked_with_input(
            ["dev", "--until-eof", *words], environment(tmp_path, variables), errors
        )
    with process.output, keyboard:
        try:
            async with asyncio.timeout(SECONDS):
                address, aws, http, said = await asyncio.to_thread(_read_until_ready, process.output)
            yield Dev(process, keyboard, address, aws, http, said, log)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, SECONDS)


def _read_until_ready(output: BinaryIO) -> tuple[str, str, str, str]:
    """Read the output of a dev server until it is ready; return its address, its AWS's URL and the output."""
    said = ""
    for line in map(bytes.decode, output):
        said += line
        if found := READY.fullmatch(line):
            return found[1], found[2], found[3], said
    raise AssertionError(f"it did not start: {said}")


async def failing(tmp_path: Path, *words: str, **variables: str) -> tuple[int, str]:
    """Run a dev server that must not start; return its exit code and its output."""
    process = forked(["dev", *words], environment(tmp_path, variables))
    try:
        async with asyncio.timeout(SECONDS):
            written = await asyncio.to_thread(process.output.read)
    finally:
        process.kill()
        process.output.close()
    return process.wait(), written.decode()


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(*pids: int) -> None:
    """Wait until processes have ended."""

    async def left() -> list[int]:
        return [pid for pid in pids if alive(pid)]

    await until(left, lambda seen: not seen, SECONDS)
