"""Runs a command of ``lessor`` with a clock that is ahead by the seconds in a file, its first argument."""

from __future__ import annotations

import asyncio
import importlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from lessor.cli.main import OWN


class MovedClock:
    """The time of this machine, and what a test adds to it."""

    def __init__(self, path: Path) -> None:
        """Read the file at each use."""
        self._path = path

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + timedelta(seconds=int(self._path.read_text() or 0))

    async def sleep(self, seconds: float) -> None:
        """Wait only shortly, as the clock may be moved meanwhile."""
        await asyncio.sleep(min(seconds, 0.05))


def main() -> int:
    """Run the command; return its exit code."""
    file, name, *arguments = sys.argv[1:]
    command = getattr(importlib.import_module(f"lessor.cli.{OWN[name]}"), name.replace("-", "_"))
    try:
        code = command.main(arguments, standalone_mode=False, obj={"clock": MovedClock(Path(file))})
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
