"""Reads README.md as a user does: commands to type, their output, and files to save.

A fenced block ``sh`` is typed; a block ``text`` right after it is its complete output. A block of another
kind is a file, whose name is in its first line. In a ``text`` block ``…`` matches any text within a line, and
a line with only ``…`` matches any number of lines; the number of blanks does not matter.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.server_process import bare_environment

README = Path(__file__).parents[2] / "README.md"
SECONDS = 120.0

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_REFUSED = re.compile(r"^(lessor: (?!warning)|ERROR:)", re.MULTILINE)
_WAITING = re.compile(r"^lessor: waiting for .*\n", re.MULTILINE)
_ANY_LINES = r"(?:.*\n)*?"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, and the line on which its fence opens."""

    line: int
    kind: str
    text: str
    end: int


@dataclass(frozen=True, slots=True)
class Step:
    """Commands to type, and their output; None if the page does not show it."""

    line: int
    typed: str
    shown: str | None

    @property
    def is_refused(self) -> bool:
        """Tell whether the page shows that one of the commands fails."""
        return self.shown is not None and _REFUSED.search(self.shown) is not None


@dataclass(frozen=True, slots=True)
class Printed:
    """What a step printed, and whether one of its commands failed."""

    text: str
    failed: bool


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in _FENCED.finditer(page):
        yield Block(page.count("\n", 0, found.start()) + 1, found[1], found[2], found.end())


def steps(page: str) -> list[Step]:
    """Return what a page tells to type, in its order."""
    found = list(blocks(page))
    shown = {block.line: block.text for block in found if block.kind == "text"}
    return [
        Step(block.line, block.text, shown.get(page.count("\n", 0, block.end) + 2))
        for block in found
        if block.kind == "sh"
    ]


def save_files(page: str, folder: Path) -> None:
    """Save each block that is a file under its name."""
    for block in blocks(page):
        if block.kind not in {"sh", "text"}:
            name = block.text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(block.text, encoding="utf-8")


def looks_like(shown: str, printed: str) -> bool:
    """Tell whether what was printed is what the page shows."""
    pattern = "".join(
        _ANY_LINES if line == "…" else re.escape(line).replace("…", ".+?") + "\n" for line in _lines(shown)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


async def walk(page: str, todo: list[Step], folder: Path) -> dict[int, Printed]:
    """Type all steps into one shell in ``folder``; return what each printed, those not reached left out."""
    save_files(page, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    script = ["trap 'failed=yes' ERR"]
    for step in todo:
        (folder / f"{step.line}.sh").write_text(step.typed, encoding="utf-8")
        script.append(f"failed=no; . ./{step.line}.sh > {step.line}.out 2>&1 < /dev/null")
        script.append(f"echo $failed > {step.line}.failed")
    await _run("\n".join(script), folder)
    return {
        step.line: Printed(
            # What a command adds on a slow machine is on no page.
            _WAITING.sub("", (folder / f"{step.line}.out").read_text(encoding="utf-8")),
            failed=(folder / f"{step.line}.failed").read_text(encoding="utf-8") == "yes\n",
        )
        for step in todo
        if (folder / f"{step.line}.failed").exists()
    }


async def _run(script: str, folder: Path) -> None:
    """Run a script of bash, and end with it all that it started."""
    env = {**bare_environment(), "HOME": str(folder), "TMPDIR": str(folder)}
    env["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"  # not that of who runs the tests
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, env=env, stdin=DEVNULL, start_new_session=True
    )
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]
