"""Runs OpenBao's command line, a real client of Vault's API, against a server of ours."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BINARY: Final = Path(sys.executable).parent / "bao"
SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command printed, and its exit code."""

    code: int
    output: str
    errors: str

    def json(self) -> Any:
        """Return its output as JSON."""
        assert self.code == 0, self.errors
        return json.loads(self.output)


@dataclass(frozen=True, slots=True)
class Bao:
    """The command line for one server and one token."""

    url: str
    token: str
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        """Return its environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "BAO_ADDR": self.url,
            "BAO_TOKEN": self.token,
            "VAULT_ADDR": self.url,
            "VAULT_TOKEN": self.token,
        }

    async def run(self, *words: str, typed: str | None = None, **environ: str) -> Printed:
        """Run a command; ``typed`` is its standard input."""
        process = await asyncio.create_subprocess_exec(
            str(BINARY),
            *words,
            env={**self.environ, **environ},
            cwd=self.home,
            stdin=DEVNULL if typed is None else PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS):
                output, errors = await process.communicate(None if typed is None else typed.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Printed(process.returncode, output.decode(), errors.decode())

    async def ok(self, *words: str, typed: str | None = None) -> str:
        """Return the output of a command that succeeds, without blanks at the ends of lines."""
        printed = await self.run(*words, typed=typed)
        assert printed.code == 0, printed.errors
        return "\n".join(line.rstrip() for line in printed.output.splitlines())

    async def fails(self, *words: str) -> str:
        """Return the errors of a command that the server refuses."""
        printed = await self.run(*words)
        assert printed.code == 2, printed.output
        return printed.errors
