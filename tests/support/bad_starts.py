"""Runs servers that must not start, and returns their output."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.forked import forked
from tests.support.server_process import TOKEN, bare_environment

BAD_START, BAD_SETTINGS = 1, 2


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit code and the output of a server that did not start."""

    code: int
    words: str


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server with ``folder/data``; an empty value removes a variable."""
    given = {
        **bare_environment(),
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_DATA_DIR": str(folder / "data"),
        "LESSOR_ROOT_TOKEN": TOKEN,
        **variables,
    }
    return {name: value for name, value in given.items() if value}


async def ended(folder: Path, *flags: str, **variables: str) -> Ended:
    """Run a server that must exit without a stack trace."""
    process = forked(["server", *flags], environment(folder, variables))
    try:
        async with asyncio.timeout(60):
            words = (await asyncio.to_thread(process.output.read)).decode()
    finally:
        process.kill()
        process.output.close()
    assert "Traceback" not in words
    return Ended(process.wait(), words)


async def refuses_to_start(folder: Path, **variables: str) -> str:
    """Assert that a start fails with one line that names a fix; return that line."""
    end = await ended(folder, **variables)
    assert end.code == BAD_START, end.words
    (line,) = end.words.splitlines()
    assert line.startswith("lessor server: ")
    return line
